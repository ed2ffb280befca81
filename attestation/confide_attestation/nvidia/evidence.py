"""Evidence of NVIDIA devices as files carry it, and what endorses it; makes no trust claim.

Source: NVIDIA/attestation-sdk `serialized_test_evidence/` and the requests of its Remote Attestation Service.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import split_pem, strict_base64
from confide_attestation.nvidia.ocsp import OcspAnswer
from confide_attestation.nvidia.spdm import MAX_REPORT_BYTES
from confide_attestation.nvidia.strict_json import parse_json

MAX_EVIDENCE_BYTES = 1 << 20
MAX_DEVICES = 64
REPORT_HEAD = bytes.fromhex("11e0")
_HEX = re.compile(rb"[0-9a-fA-F\s]+")


@dataclass(frozen=True)
class DeviceEvidence:
    """One device's report and PEM chain. `arch` and `claimed_nonce` are the sender's words and prove nothing."""

    report: bytes
    chain: bytes
    arch: str | None = None
    claimed_nonce: str | None = None


@dataclass(frozen=True)
class NvidiaEndorsements:
    """Reference manifests in any order, and recorded OCSP answers; None leaves revocation unjudged."""

    rims: tuple[bytes, ...] = field(default=())
    ocsp: tuple[OcspAnswer, ...] | None = None


def parse_evidence(data: bytes, chain: bytes | None) -> tuple[DeviceEvidence, ...]:
    """Read a report (raw or hex) or NVIDIA's JSON of one or several devices; `chain` is for reports without one.

    Raises: EvidenceMalformed if it is none of them. Does not check: that reports or chains can be read.
    """
    text = data.strip()
    if text[:1] in (b"[", b"{"):
        return _devices(parse_json(data, MAX_EVIDENCE_BYTES), chain)
    if text and _HEX.fullmatch(text):
        digits = b"".join(text.split()).decode()
        if len(digits) % 2:
            raise EvidenceMalformed("expected a report in hex, found an odd number of digits")
        data = bytes.fromhex(digits)
    if not data.startswith(REPORT_HEAD) or len(data) > MAX_REPORT_BYTES:
        raise EvidenceMalformed(
            f"expected NVIDIA's measurement report (raw or hex) or its evidence JSON, found {_name(data)}"
        )
    if chain is None:
        raise EvidenceMalformed("the report carries no certificate chain; give it with --chain")
    return (DeviceEvidence(data, chain),)


def _devices(tree: Any, chain: bytes | None) -> tuple[DeviceEvidence, ...]:  # noqa: ANN401 - parsed JSON
    outer: dict[str, Any] = {}
    if isinstance(tree, dict) and isinstance(tree.get("evidence_list"), list):
        outer, tree = tree, tree["evidence_list"]
    if not isinstance(tree, list) or not 1 <= len(tree) <= MAX_DEVICES:
        raise EvidenceMalformed(f"expected NVIDIA's evidence JSON: a list of 1 to {MAX_DEVICES} devices")
    return tuple(_device(each, outer, chain) for each in tree)


def _device(item: Any, outer: dict[str, Any], chain: bytes | None) -> DeviceEvidence:  # noqa: ANN401 - parsed JSON
    if not isinstance(item, dict):
        raise EvidenceMalformed("expected NVIDIA's evidence JSON: each device is an object")
    words = {key: item.get(key, outer.get(key)) for key in ("arch", "nonce", "evidence", "certificate")}
    for key, value in words.items():
        if value is not None and not isinstance(value, str):
            raise EvidenceMalformed(f"expected NVIDIA's evidence JSON: {key} is no text")
    report, certificate = words["evidence"], words["certificate"]
    if report is None:
        raise EvidenceMalformed("expected NVIDIA's evidence JSON: a device has no evidence")
    own = chain if certificate is None else strict_base64(certificate.encode())
    if own is None:
        raise EvidenceMalformed("a device carries no certificate chain; give it with --chain")
    if chain is not None and certificate is not None and split_pem(own) != split_pem(chain):
        raise EvidenceMalformed("the evidence carries another certificate chain than --chain; leave --chain out")
    return DeviceEvidence(strict_base64(report.encode()), own, words["arch"], words["nonce"])


def _name(data: bytes) -> str:
    """Say in a few words what a file seems to be."""
    if not data:
        return "nothing"
    if data.lstrip().startswith(b"-----BEGIN"):
        return "a PEM file"
    if data.lstrip().startswith(b"<"):
        return "an XML file"
    return f"{len(data)} bytes of another kind"
