"""Evidence as files carry it: raw, hex and JSON of several devices; nothing else."""

import base64
import json

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.evidence import DeviceEvidence, parse_evidence
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor

NONCE = b"\x4e" * 32


@pytest.fixture(scope="module")
def parts(vendor: SimulatedVendor) -> tuple[bytes, bytes]:
    device = SimulatedDevice(vendor)
    return device.report(NONCE), device.chain


def item(report: bytes, chain: bytes | None, **fields: object) -> dict[str, object]:
    own = {} if chain is None else {"certificate": base64.b64encode(chain).decode()}
    return {"evidence": base64.b64encode(report).decode(), **own, **fields}


def test_every_form_gives_the_same_devices(parts: tuple[bytes, bytes]) -> None:
    """Raw, hex with line ends, a list, and the service's request."""
    report, chain = parts
    plain = (DeviceEvidence(report, chain),)
    assert parse_evidence(report, chain) == plain
    digits = report.hex()
    assert parse_evidence(f"{digits[:80]}\n{digits[80:].upper()}\n".encode(), chain) == plain
    assert parse_evidence(json.dumps([item(report, chain)]).encode(), None) == plain
    assert parse_evidence(json.dumps([item(report, None)]).encode(), chain) == plain
    assert parse_evidence(json.dumps([item(report, chain)]).encode(), chain) == plain
    request = {"arch": "HOPPER", "nonce": NONCE.hex(), "evidence_list": [item(report, chain)] * 2}
    labelled = DeviceEvidence(report, chain, "HOPPER", NONCE.hex())
    assert parse_evidence(json.dumps(request).encode(), None) == (labelled, labelled)


def test_other_files_are_named(parts: tuple[bytes, bytes], vendor: SimulatedVendor) -> None:
    """What was expected and what was found."""
    report, chain = parts
    for data, found in (
        (b"", "nothing"),
        (chain, "a PEM file"),
        (b"<SoftwareIdentity/>", "an XML file"),
        (b"\x02\0\0\0" * 300, "1200 bytes of another kind"),
        (report.hex()[:-1].encode(), "odd number"),
        (b"\x11\xe0" * 0x2000, "another kind"),
    ):
        with pytest.raises(EvidenceMalformed, match=found):
            parse_evidence(data, chain)
    other = SimulatedDevice(vendor).chain
    for tree, given in (
        ({}, chain), ([], chain), ([1], chain), ([item(report, chain)] * 65, chain), ([{"evidence": 1}], chain),
        ([{}], chain), ([item(report, None)], None), ([item(report, chain)], other),
        ([{"evidence": "!"}], chain), ([item(report, chain, nonce=1)], None), ([item(report, chain, arch=9)], None),
    ):  # fmt: skip
        with pytest.raises(EvidenceMalformed):
            parse_evidence(json.dumps(tree).encode(), given)
    for text in (b'[{"evidence": "EeA=", "evidence": "EeA="}]', b"[NaN]", b"[" * 5000, b"[{]"):
        with pytest.raises(EvidenceMalformed):
            parse_evidence(text, chain)
    with pytest.raises(EvidenceMalformed, match="--chain"):
        parse_evidence(report, None)
