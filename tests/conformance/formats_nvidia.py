"""Fields of NVIDIA's evidence: SPDM reports, device chains, manifests (RIM), OCSP answers, NRAS tokens, keys."""

import re

from confide_attestation.nvidia.spdm import Opaque

from tests.conformance import Field, Layout, checks
from tests.conformance.spans import Span, der_children, fill, json_layout, pem_spans

_FORM = checks("gpu_report_format")
_SIGNED = checks("gpu_report_sig")
_EITHER = _FORM | _SIGNED


def spdm_report(data: bytes) -> Layout:
    """DMTF DSP0274 1.1.0: request, response with its blocks and opaque data, signature."""
    record_bytes = int.from_bytes(data[42:45], "little")
    rows = [
        ("request", 4, _FORM),
        ("nonce", 32, checks("gpu_nonce")),
        ("slot", 1, _SIGNED),
        ("response", 2, _FORM),
        ("parameters", 2, _SIGNED),
        ("block_count", 1, _FORM),
        ("record_length", 3, _FORM),
    ]
    at = sum(size for _, size, _ in rows)
    end = at + record_bytes
    while at < end:
        index, size = data[at] - 1, int.from_bytes(data[at + 2 : at + 4], "little")
        rows += [
            (f"block{index}.head", 4, _FORM),
            (f"block{index}.kind", 1, _SIGNED),
            (f"block{index}.length", 2, _FORM),
            (f"block{index}.value", size - 3, _SIGNED),
        ]
        at += 4 + size
    rows += [("responder_nonce", 32, _SIGNED), ("opaque_length", 2, _FORM)]
    at += 34
    while at < len(data) - 96:
        kind, size = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (0, 2))
        name = f"opaque.{Opaque(kind).name.lower()}" if kind in set(Opaque) else f"opaque.{kind}"
        rows += [(f"{name}.type", 2, _EITHER), (f"{name}.length", 2, _EITHER), (name, size, _SIGNED)]
        at += 4 + size
    rows += [("signature_r", 48, _SIGNED), ("signature_s", 48, _SIGNED)]
    return lay(rows)


def lay(rows: list[tuple[str, int, frozenset[str]]]) -> Layout:
    """Put fields of given sizes one after another."""
    fields, at = [], 0
    for name, size, named in rows:
        if size:
            fields.append(Field(name, at, at + size, named))
        at += size
    return tuple(fields)


_CHAIN = checks("device_chain_format", "device_chain_sig")


def device_chain(data: bytes) -> Layout:
    names = ("leaf", "brom", "ica", "identity", "root")
    fields = [Field(name, *span, _CHAIN) for name, span in zip(names, pem_spans(data), strict=True)]
    return fill(fields, len(data), Field("form", 0, 0, checks("device_chain_format")))


_MANIFEST = checks("rim_format", "rim_sig")
_RIM_PARTS = (
    ("entity", rb"<[\w.]*:?Entity [^>]*>", _MANIFEST),
    ("meta", rb"<[\w.]*:?Meta [^>]*>", _MANIFEST),
    ("resource", rb"<[\w.]*:?Resource [^>]*>", _MANIFEST),
    ("signed_info", rb"<[\w.]*:?SignedInfo.*</[\w.]*:?SignedInfo>", _MANIFEST),
    ("signature_value", rb"<[\w.]*:?SignatureValue>.*</[\w.]*:?SignatureValue>", _MANIFEST),
    (
        "certificate",
        rb"<[\w.]*:?X509Certificate>[^<]*</[\w.]*:?X509Certificate>",
        _MANIFEST | checks("rim_chain", "rim_root_pin"),
    ),
)


def rim(data: bytes) -> Layout:
    fields = []
    for name, pattern, named in _RIM_PARTS:
        for number, match in enumerate(re.finditer(pattern, data, re.DOTALL)):
            fields.append(Field(f"{name}{number}", *match.span(), named))
    return fill(fields, len(data), Field("markup", 0, 0, _MANIFEST))


class OcspLayout:
    """RFC 6960: what is signed, by which algorithm, the signature, the responder's certificates."""

    def __init__(self, named: frozenset[str]) -> None:
        self._named = named

    def __call__(self, data: bytes) -> Layout:
        basic = data.index(b"\x30", data.index(bytes.fromhex("06092b0601050507300101")) + 11 + 2)
        parts = der_children(data, basic)
        names = ("signed", "algorithm", "signature", "responder")
        fields = [Field(name, *span, self._named) for name, span in zip(names, parts, strict=False)]
        at = parts[2][0]
        octets = at + 3 + (data[at + 1] & 0x7F if data[at + 1] & 0x80 else 0)
        fields[2:3] = [
            Field("signature_form", at, octets, self._named),
            Field("signature", octets, parts[2][1], self._named),
        ]
        return fill(fields, len(data), Field("form", 0, 0, self._named))


_TOKENS = checks("nras_tokens_format")
_TOKEN_PARTS = {
    "header": _TOKENS | checks("nras_header", "nras_alg", "nras_kid", "nras_sig"),
    "claims": _TOKENS | checks("nras_sig"),
    "signature": _TOKENS | checks("nras_sig"),
}


def nras_tokens(data: bytes) -> Layout:
    def part(span: Span) -> Field | None:
        if span.is_name:
            return Field("device (name)", span.start, span.end, _TOKENS | checks("nras_submods"))
        return None

    fields = list(json_layout(data, "tokens", part, Field("form", 0, 0, _TOKENS)))
    fields = [each for each in fields if each.name != "form"]
    for match in re.finditer(rb'"([\w-]+)\.([\w-]+)\.([\w-]+)"', data):
        for number, (name, named) in enumerate(_TOKEN_PARTS.items(), 1):
            fields.append(Field(f"token.{name}", *match.span(number), named))
    return fill(fields, len(data), Field("form", 0, 0, _TOKENS))


def jwks(data: bytes) -> Layout:
    named = checks("nras_jwks_format", "nras_kid", "nras_sig")
    return (Field("keys", 0, len(data), named),)
