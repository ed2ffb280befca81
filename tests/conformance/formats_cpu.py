"""Fields of what CPUs and their vendors sign: SEV-SNP reports and certificates, TDX quotes and collateral."""

from confide_attestation.tdx import abi

from tests.conformance import Field, Layout, checks
from tests.conformance.spans import der_children, pem_spans

_SIGNED = checks("report_sig")
_ZERO = checks("report_reserved")
# AMD 56860, "ATTESTATION_REPORT Structure": name, first byte, end, what fails when it is changed.
_REPORT = (
    ("version", 0x0, 0x4, checks("report_version", "report_sig")),
    ("guest_svn", 0x4, 0x8, _SIGNED),
    ("policy", 0x8, 0x10, _SIGNED),
    ("family_id", 0x10, 0x20, _SIGNED),
    ("image_id", 0x20, 0x30, _SIGNED),
    ("vmpl", 0x30, 0x34, _SIGNED),
    ("signature_algo", 0x34, 0x38, checks("sig_algo")),
    ("current_tcb", 0x38, 0x40, _SIGNED),
    ("platform_info", 0x40, 0x48, _SIGNED),
    ("flags", 0x48, 0x49, _SIGNED),
    ("flags_reserved", 0x49, 0x50, _ZERO),
    ("report_data", 0x50, 0x90, _SIGNED),
    ("measurement", 0x90, 0xC0, _SIGNED),
    ("host_data", 0xC0, 0xE0, _SIGNED),
    ("id_key_digest", 0xE0, 0x110, _SIGNED),
    ("author_key_digest", 0x110, 0x140, _SIGNED),
    ("report_id", 0x140, 0x160, _SIGNED),
    ("report_id_ma", 0x160, 0x180, _SIGNED),
    ("reported_tcb", 0x180, 0x188, checks("tcb_mismatch", "report_reserved")),
    ("cpuid", 0x188, 0x18B, _SIGNED),
    ("reserved_18b", 0x18B, 0x1A0, _ZERO),
    ("chip_id", 0x1A0, 0x1E0, checks("hwid_mismatch", "report_sig")),
    ("committed_tcb", 0x1E0, 0x1E8, _SIGNED),
    ("current_firmware", 0x1E8, 0x1EB, _SIGNED),
    ("reserved_1eb", 0x1EB, 0x1EC, _ZERO),
    ("committed_firmware", 0x1EC, 0x1EF, _SIGNED),
    ("reserved_1ef", 0x1EF, 0x1F0, _ZERO),
    ("launch_tcb", 0x1F0, 0x1F8, _SIGNED),
    ("mit_vectors", 0x1F8, 0x208, _SIGNED),
    ("reserved_208", 0x208, 0x2A0, _ZERO),
    ("signature_r", 0x2A0, 0x2D0, _SIGNED),
    ("padding_r", 0x2D0, 0x2E8, checks("sig_padding")),
    ("signature_s", 0x2E8, 0x318, _SIGNED),
    ("padding_s", 0x318, 0x330, checks("sig_padding")),
    ("padding", 0x330, 0x4A0, checks("sig_padding")),
)


def snp_report(data: bytes) -> Layout:
    assert len(data) == _REPORT[-1][2]
    return tuple(Field(*row) for row in _REPORT)


def signed_der(data: bytes, named: frozenset[str]) -> Layout:
    """Lay out a certificate or list: what is signed, by which algorithm, the signature."""
    (start, end), algorithm, (at, last) = der_children(data)
    octets = at + 3 + (data[at + 1] & 0x7F if data[at + 1] & 0x80 else 0)
    rows = (
        ("form", 0, start),
        ("signed", start, end),
        ("algorithm", *algorithm),
        ("signature_form", at, octets),
        ("signature", octets, last),
    )
    return tuple(Field(*row, named) for row in rows)


def vek(data: bytes) -> Layout:
    return signed_der(data, checks("vek_format", "vek_sig"))


def ask(data: bytes) -> Layout:
    return signed_der(data, checks("ask_format", "ask_sig"))


def ark(data: bytes) -> Layout:
    return signed_der(data, checks("ark_format", "ark_pin"))


def crl(data: bytes) -> Layout:
    return signed_der(data, checks("crl_format", "crl_sig"))


_BODY = checks("quote_signature")
_LENGTH = checks("quote_truncated", "quote_lengths", "quote_trailing_data")
_QE = checks("qe_report_signature")


def tdx_quote(data: bytes) -> Layout:
    """Lay a quote out by the lengths that it has itself (Intel TDX DCAP, quote versions 4 and 5)."""
    quote = abi.parse_quote(data)
    rows: list[tuple[str, int, frozenset[str]]] = [
        ("version", 2, checks("quote_version", "body_type", "quote_truncated", "quote_lengths")),
        ("attestation_key_type", 2, checks("att_key_type")),
        ("tee_type", 4, checks("tee_type")),
        ("qe_pce_svn", 4, _BODY),
        ("qe_vendor", 16, checks("qe_vendor")),
        ("user_data", 20, _BODY),
    ]
    if quote.version == 5:
        rows += [("body_type", 2, checks("body_type")), ("body_size", 4, checks("body_type"))]
    later = abi.TD15_FIELDS if quote.body_type is abi.BodyType.TD15 else {}
    rows += [(f"body.{name}", size, _BODY) for name, (_, size) in {**abi.FIELDS, **later}.items()]
    size = len(quote.signed)
    # Length, signature, key, head of the certification data, the QE's report and its signature stand before it.
    auth_at = size + 4 + 64 + 64 + 6 + abi.QE_REPORT_BYTES + 64
    auth_size = int.from_bytes(data[auth_at : auth_at + 2], "little")
    rows += [
        ("signature_length", 4, _LENGTH),
        ("signature", 64, _BODY),
        ("attestation_key", 64, checks("ak_binding")),
        ("certification_type", 2, checks("cert_data_type")),
        ("certification_length", 4, _LENGTH),
        *((f"qe.{name}", count, named) for name, count, named in _QE_REPORT),
        ("qe_report_signature", 64, _QE),
        ("authentication_length", 2, _LENGTH | checks("ak_binding", "cert_data_type")),
        ("authentication_data", auth_size, checks("ak_binding")),
        ("certificates_type", 2, checks("cert_data_type")),
        ("certificates_length", 4, _LENGTH),
    ]
    fields, at = [], 0
    for name, count, named in rows:
        fields.append(Field(name, at, at + count, named))
        at += count
    text = data[at : len(quote.data)]
    for name, (start, end) in zip(("pck", "ca", "root"), pem_spans(text), strict=True):
        fields.append(Field(f"certificates.{name}", at + start, at + end, _QUOTE_CHAIN[name]))
    fields += _gaps(fields, at, len(quote.data), "certificates.form", checks("pck_chain_format"))
    if len(data) > len(quote.data):
        fields.append(Field("padding", len(quote.data), len(data), checks("quote_trailing_data")))
    return tuple(sorted(fields, key=lambda each: each.start))


_QE_REPORT = (
    ("cpu_svn", 16, _QE),
    ("misc_select", 4, _QE),
    ("reserved_20", 28, checks("qe_report_reserved")),
    ("attributes", 16, _QE),
    ("mr_enclave", 32, _QE),
    ("reserved_96", 32, checks("qe_report_reserved")),
    ("mr_signer", 32, _QE),
    ("reserved_160", 96, checks("qe_report_reserved")),
    ("isv_prod_id", 2, _QE),
    ("isv_svn", 2, _QE),
    ("reserved_260", 60, checks("qe_report_reserved")),
    ("report_data", 32, _QE),
    ("report_data_rest", 32, checks("qe_report_reserved")),
)
_QUOTE_CHAIN = {
    "pck": checks("pck_chain_format", "pck_chain", "pck_extensions", "qe_report_signature", "pck_expired"),
    "ca": checks("pck_chain_format", "pck_chain"),
    "root": checks("pck_chain_format", "root_untrusted"),
}


def _gaps(fields: list[Field], start: int, end: int, name: str, named: frozenset[str]) -> list[Field]:
    found, at = [], start
    for each in sorted((each for each in fields if each.start >= start), key=lambda each: each.start):
        if each.start > at:
            found.append(Field(name, at, each.start, named))
        at = each.end
    return found if at == end else [*found, Field(name, at, end, named)]
