"""What a peer wrote can stand in a check's detail; nobody's terminal or log may take it for more than text."""

from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum

import pytest
from confide_attestation.appraise import appraise
from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import AppraisalRejected, EvidenceMalformed
from confide_attestation.evidence import EventLog, encode_bundle, parse_bundle
from confide_attestation.result import MAX_DETAIL_CHARS
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.fakes.gpu_scene import GpuScene, gpu, other_gpu
from tests.fakes.scene import NONCE, NOW, Scene

ESCAPES = "\x1b[2J\x1b[Haccepted: every check\n\u202e"


class Id(StrEnum):
    ONE = "one"


@pytest.mark.parametrize("detail", ["plain words, and 1…", "é"])
def test_a_detail_that_can_be_read_stays_as_it_is(detail: str) -> None:
    """Letters of any language are no danger."""
    ledger = Ledger()
    ledger.fail(Id.ONE, detail)
    assert ledger.close([Id.ONE])[0].detail == detail


@pytest.mark.parametrize("detail", [ESCAPES, "x" * 100_000, ESCAPES * 1000, "\ud800"])
def test_every_detail_is_printable_and_bounded(detail: str) -> None:
    """Control characters, line ends, marks that turn the direction of text, lone surrogates."""
    for record in (Ledger.fail, Ledger.skip, Ledger.waive):
        ledger = Ledger()
        record(ledger, Id.ONE, detail)
        (check,) = ledger.close([Id.ONE])
        assert check.detail.isprintable()
        assert len(check.detail) <= MAX_DETAIL_CHARS


def test_an_event_log_is_of_a_known_kind() -> None:
    """In a bundle it is refused at once; made by a caller, it shows as text."""
    evidence, endorsements, policy = Scene().build()
    odd = replace(evidence, event_logs=(EventLog(ESCAPES, b""),))
    with pytest.raises(EvidenceMalformed, match="ccel or dstack"):
        parse_bundle(encode_bundle(odd, endorsements))
    result = appraise(odd, endorsements, policy, now_unix_s=NOW, floor=1, nonce=NONCE, allow_simulated=True)
    assert [check.id for check in result.failed] == ["event_logs"]
    assert str(AppraisalRejected(result)).isprintable()


def named(common: str) -> bytes:
    """Return a self-signed certificate of that name, which may be longer than any authority would write."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common, _validate=False)])
    start, end = (datetime.fromtimestamp(NOW + day * 86_400, UTC) for day in (-1, 1))
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(5).not_valid_before(start).not_valid_after(end)
    return builder.sign(key, SHA384()).public_bytes(Encoding.PEM)


@pytest.mark.filterwarnings("ignore:Attribute's length")
@pytest.mark.parametrize("count", [1, 2])
def test_names_in_certificates_of_gpus_are_text(count: int) -> None:
    """They stand in details before any signature holds; also where the devices' details are merged into one."""
    chains = [named(f"{number}{ESCAPES}" + "x" * 400) * 5 for number in range(count)]
    scene = GpuScene(devices=((gpu(), {}), (other_gpu(), {}))[:count])
    scene.shown = lambda gpus: [replace(g, certificate_chain=c) for g, c in zip(gpus, chains, strict=True)]
    details = {check.id: check.detail for check in scene.appraise().checks}
    assert "\N{REPLACEMENT CHARACTER}[2J" in details["device_chain_roles"]
    for detail in details.values():
        assert detail.isprintable()
        assert len(detail) <= MAX_DETAIL_CHARS
