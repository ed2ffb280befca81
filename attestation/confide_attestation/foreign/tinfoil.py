"""Parse Tinfoil's attestation documents, version 2 (alone or in a bundle) and version 3; makes no trust claim.

Source: tinfoilsh/tinfoil-go `verifier/attestation` (v2) and `verifier/document` (v3). In version 3 the two endorsed
sections are hashed as the exact bytes that their base64 holds.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.foreign.fields import (
    malformed,
    read_base64,
    read_json,
    read_list,
    read_lower_hex,
    read_object,
    read_text,
)
from confide_attestation.foreign.intel_pcs import collateral_of
from confide_attestation.pem import pem_blocks

_URL = "https://tinfoil.sh"
V3 = f"{_URL}/predicate/attestation/v3"
REPORT_DATA_V1 = f"{_URL}/report-data/v1"
_PLATFORMS = {
    f"{_URL}/predicate/sev-snp-guest/v2": "sev-snp",
    f"{_URL}/predicate/tdx-guest/v2": "tdx",
    f"{_URL}/format/sev-snp-report/v1": "sev-snp",
    f"{_URL}/format/tdx-quote/v1": "tdx",
}
NVIDIA_FORMAT = f"{_URL}/format/nvidia-gpu-evidence/v1"
_TLS_FORMAT, _HPKE_FORMAT = f"{_URL}/key/spki-fp-sha256/v1", f"{_URL}/key/x25519-hpke/v1"
MAX_EVIDENCE_BYTES = 128 * 1024
MAX_ITEMS = 64


@dataclass(frozen=True)
class Challenge:
    """What a document of version 3 says it answers, and the hashes that it says it has."""

    nonce: bytes
    report_data: bytes
    crypto_hash: bytes
    device_hash: bytes


@dataclass(frozen=True)
class TinfoilDocument:
    """One enclave's document. `challenge` is None in version 2, whose keys stand in the report data themselves.

    `devices` is NVIDIA's evidence JSON (a list), None without devices; `other_devices` are those of other formats.
    """

    platform: str
    evidence: bytes = field(repr=False)
    challenge: Challenge | None = None
    crypto_material: bytes = b""
    device_evidence: bytes = b""
    tls_fingerprint: bytes | None = None
    hpke_key: bytes | None = None
    devices: bytes | None = field(default=None, repr=False)
    other_devices: tuple[str, ...] = ()
    vek: bytes | None = None
    issuers: tuple[bytes, ...] = ()
    crl: bytes | None = None
    collateral_json: bytes | None = field(default=None, repr=False)
    enclave_cert: bytes | None = None


def is_tinfoil(tree: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Say whether a document is of this kind at all."""
    if not isinstance(tree, dict):
        return False
    return "enclaveAttestationReport" in tree or str(tree.get("format", "")).startswith(_URL)


def parse_tinfoil(data: bytes) -> TinfoilDocument:
    """Parse a document. Raises: EvidenceMalformed."""
    return parse_document(read_json(data))


def parse_document(tree: Any) -> TinfoilDocument:  # noqa: ANN401 - any JSON value
    if not is_tinfoil(tree):
        raise malformed("expected Tinfoil's attestation document, found another document")
    if "enclaveAttestationReport" in tree:
        return _bundle(tree)
    return _version_3(tree) if tree["format"] == V3 else _version_2(tree)


def _version_2(tree: Mapping[str, Any], *, vek: bytes | None = None, cert: bytes | None = None) -> TinfoilDocument:
    platform = _PLATFORMS.get(read_text(tree, "format") or "")
    if platform is None:
        raise malformed(f"the document's format is unknown: {str(tree.get('format'))[:80]!r}")
    if vek is None and tree.get("vcek"):
        vek = read_base64(tree, "vcek")
    return TinfoilDocument(platform, _unzipped(read_base64(tree, "body")), vek=vek, enclave_cert=cert)


def _bundle(tree: Mapping[str, Any]) -> TinfoilDocument:
    inner = read_object(tree["enclaveAttestationReport"], "enclaveAttestationReport")
    cert = read_text(tree, "enclaveCert")
    vek = read_base64(tree, "vcek") if tree.get("vcek") else None
    return _version_2(inner, vek=vek, cert=_certificates(cert)[0] if cert else None)


def _version_3(tree: Mapping[str, Any]) -> TinfoilDocument:
    names = ("format", "challenge", "cpu_evidence", "crypto_material", "device_evidence", "collateral")
    read_object(tree, "the document", names)
    asked = read_object(tree["challenge"], "challenge", ("nonce", "report_data", "report_data_algorithm"))
    if asked["report_data_algorithm"] != REPORT_DATA_V1:
        raise malformed(f"challenge.report_data_algorithm is not {REPORT_DATA_V1}")
    cpu = read_object(tree["cpu_evidence"], "cpu_evidence", ("format", "report_base64", "endorsed"))
    endorsed = read_object(cpu["endorsed"], "endorsed", ("crypto_material_hash", "device_evidence_hash"))
    platform = _PLATFORMS.get(read_text(cpu, "format") or "")
    if platform is None:
        raise malformed(f"cpu_evidence is of an unknown format: {str(cpu['format'])[:80]!r}")
    crypto, device = read_base64(tree, "crypto_material"), read_base64(tree, "device_evidence")
    keys = _items(crypto, f"{_URL}/crypto-material/v1", ("id", "format", "data"))
    devices = _items(device, f"{_URL}/device-evidence/v1", ("id", "kind", "vendor", "format", "evidence"))
    of_nvidia = [item["evidence"] for item in devices.values() if item["format"] == NVIDIA_FORMAT]
    return TinfoilDocument(
        platform=platform,
        evidence=read_base64(cpu, "report_base64"),
        challenge=Challenge(
            read_lower_hex(asked, "nonce", 32),
            read_lower_hex(asked, "report_data", 64),
            read_lower_hex(endorsed, "crypto_material_hash", 32),
            read_lower_hex(endorsed, "device_evidence_hash", 32),
        ),
        crypto_material=crypto,
        device_evidence=device,
        tls_fingerprint=_key(keys, "tls", _TLS_FORMAT),
        hpke_key=_key(keys, "hpke", _HPKE_FORMAT),
        devices=json.dumps(of_nvidia).encode() if of_nvidia else None,
        other_devices=tuple(name for name, item in devices.items() if item["format"] != NVIDIA_FORMAT),
        **_collateral(tree["collateral"]),
    )


def _items(section: bytes, form: str, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Read an endorsed section: its items by their ids, each id once."""
    tree = read_object(read_json(section), "an endorsed section", ("format", "items"))
    if tree["format"] != form:
        raise malformed(f"an endorsed section is not {form}")
    items: dict[str, dict[str, Any]] = {}
    for each in read_list(tree["items"], "an endorsed section's items", MAX_ITEMS):
        item = read_object(each, "an item", names)
        for name in names:
            if name != "evidence" and not read_text(item, name):
                raise malformed(f"an item has no {name}")
        if item["id"] in items:
            raise malformed("an item's id is there twice")
        items[item["id"]] = item
    return items


def _key(keys: Mapping[str, Mapping[str, Any]], name: str, form: str) -> bytes | None:
    if name not in keys:
        return None
    if keys[name]["format"] != form:
        raise malformed(f"the key {name} is not {form}")
    return read_lower_hex(keys[name], "data", 32)


def _collateral(entries: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Read the vendors' documents that came with it; those of other formats are left unread."""
    found: dict[str, Any] = {}
    for entry in read_list(entries, "collateral", MAX_ITEMS):
        tree = read_object(entry, "an entry of collateral")
        kind = (read_text(tree, "format") or "").removeprefix(f"{_URL}/collateral/")
        if kind not in ("amd-vcek/v1", "amd-crl/v1", "intel-pcs/v1"):
            continue
        data = read_object(tree.get("data"), f"collateral {kind}")
        if kind == "amd-vcek/v1":
            found["vek"] = read_base64(data, "vcek_der_base64")
            chain = read_text(data, "cert_chain_pem")
            found["issuers"] = _certificates(chain) if chain else ()
        elif kind == "amd-crl/v1":
            found["crl"] = read_base64(data, "crl_der_base64")
        else:
            found["collateral_json"] = collateral_of(data.get("responses"))
    return found


def _certificates(pem: str) -> tuple[bytes, ...]:
    try:
        return pem_blocks(pem.encode(), "CERTIFICATE", (1, 2, 3))
    except EvidenceMalformed as fault:
        raise malformed(str(fault)) from None


def _unzipped(data: bytes) -> bytes:
    """Unpack gzip up to the size that a quote can have, and no byte more."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, MAX_EVIDENCE_BYTES + 1)
    except zlib.error:
        raise malformed("body is not gzip") from None
    if len(plain) > MAX_EVIDENCE_BYTES or not unpacker.eof or unpacker.unused_data:
        raise malformed(f"body is not one gzip member of at most {MAX_EVIDENCE_BYTES} bytes")
    return plain
