"""OCSP answers: about the right certificate, by the right responder, in their window, and good."""

import base64
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import is_signed_by, load_certificate
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.nvidia.ocsp import OcspAnswer, judge_revocation, read_answer
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.result import Verdict
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor, new_key
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

NONCE = b"\x4e" * 32


def outcome(vendor: SimulatedVendor, *answers: OcspAnswer) -> tuple[bool, bool, bool]:
    """Judge the provisioner's certificate alone: unanswered, out of window, revoked."""
    judged = judge_revocation((vendor.ica, vendor.identity), answers, vendor.now_unix_s)
    return bool(judged.unanswered), bool(judged.out_of_window), bool(judged.revoked)


def answer(vendor: SimulatedVendor, **fields: Any) -> OcspAnswer:
    return vendor.answer(vendor.ica, vendor.identity, vendor.keys["identity"], **fields)


def test_good_answer_holds(vendor: SimulatedVendor) -> None:
    """Alone and among others."""
    other = vendor.answer(vendor.identity, vendor.root, vendor.keys["root"])
    assert outcome(vendor, answer(vendor)) == (False, False, False)
    assert outcome(vendor, other, answer(vendor)) == (False, False, False)


def test_bad_answers_are_named(vendor: SimulatedVendor) -> None:
    """Missing, foreign, unsigned, for another purpose, late, early, revoked, unknown."""
    now = vendor.now_unix_s
    unanswered, late, revoked = (True, False, False), (False, True, False), (False, False, True)
    foreign = vendor.answer(vendor.identity, vendor.root, vendor.keys["root"])
    unsigned = vendor.answer(vendor.ica, vendor.identity, new_key())
    by_root = vendor.answer(vendor.ica, vendor.root, vendor.keys["root"])
    changed = bytearray(answer(vendor).der)
    changed[-1] ^= 1
    later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    for given, expected in (
        ((), unanswered),
        ((foreign,), unanswered),
        ((unsigned,), unanswered),
        ((by_root,), unanswered),
        ((answer(vendor, purpose=ExtendedKeyUsageOID.SERVER_AUTH),), unanswered),
        ((OcspAnswer(bytes(changed)),), unanswered),
        ((OcspAnswer(later.public_bytes(Encoding.DER)),), unanswered),
        ((OcspAnswer(b"junk"),), unanswered),
        ((answer(vendor, window=(now - 99, now - 1)),), late),
        ((answer(vendor, window=(now + 99, now + 999)),), late),
        ((answer(vendor, status=ocsp.OCSPCertStatus.REVOKED),), revoked),
        ((answer(vendor, status=ocsp.OCSPCertStatus.UNKNOWN),), revoked),
        ((answer(vendor), answer(vendor, status=ocsp.OCSPCertStatus.REVOKED)), revoked),
    ):
        assert outcome(vendor, *given) == expected


def test_a_nonce_that_was_asked_is_echoed(vendor: SimulatedVendor) -> None:
    """None is demanded of recorded answers; one that was asked for must come back."""
    with_nonce = answer(vendor, nonce=b"\1" * 32)
    assert outcome(vendor, with_nonce) == (False, False, False)
    assert outcome(vendor, OcspAnswer(with_nonce.der, b"\1" * 32)) == (False, False, False)
    assert outcome(vendor, OcspAnswer(with_nonce.der, b"\2" * 32)) == (True, False, False)
    assert outcome(vendor, OcspAnswer(answer(vendor).der, b"\1" * 32)) == (True, False, False)


def test_every_certificate_of_device_and_manifests_needs_its_answer(vendor: SimulatedVendor) -> None:
    """Each of the six answers left out, revoked or late is refused for it."""
    device, now = SimulatedDevice(vendor), vendor.now_unix_s
    answers, evidence = device.answers(), [device.evidence(NONCE)]
    rims = device.rims

    def failed(given: tuple[OcspAnswer, ...], at: int = now) -> list[str]:
        result = verify_nvidia(
            evidence, NvidiaEndorsements(rims, given), now_unix_s=at, nonce=NONCE, roots=vendor.roots
        )
        assert result.verdict is (Verdict.REFUSED if result.failed else Verdict.AUTHENTIC)
        return [check.id for check in result.failed]

    assert failed(answers) == []
    for number in range(6):
        expected = "device_chain_ocsp" if number < 3 else "rim_ocsp"
        assert failed(answers[:number] + answers[number + 1 :]) == [expected]
    assert failed(answers, now + 2 * 86_400) == ["device_chain_ocsp_expired", "rim_ocsp_expired"]
    held = vendor.answer(
        vendor.rim_chain[0], vendor.rim_chain[1], vendor.keys["rim_l3"], status=ocsp.OCSPCertStatus.REVOKED
    )
    assert failed((*answers, held)) == ["rim_revoked"]


def test_answers_are_read_as_der_or_base64(vendor: SimulatedVendor) -> None:
    """Both forms are the same; anything else is no answer."""
    good = answer(vendor)
    assert read_answer(good.der) == read_answer(base64.encodebytes(good.der)) == good
    for data in (b"", b"0", b"\x30\x00", b"!!!!", good.der[:-1], good.der + b"\0", b"0" * 20_000):
        with pytest.raises(EvidenceMalformed):
            read_answer(data)


def test_a_damaged_answer_is_silent(vendor: SimulatedVendor) -> None:
    """The library warns of some faults; nothing that was sent may make it write to stderr."""
    good = answer(vendor).der
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for at in range(len(good)):
            with suppress(EvidenceMalformed):
                read_answer(good[:at] + bytes((good[at] ^ 0x80,)) + good[at + 1 :])
    assert heard == []


def test_signatures_are_of_whole_bytes(vendor: SimulatedVendor) -> None:
    """A BIT STRING that lets some of its last bits not count is another encoding of the same signature."""
    der = bytearray(
        next(each for each in (answer(vendor).der for _ in range(64)) if not signature_of(each)[-1] & 1)
    )
    signature = signature_of(bytes(der))
    der[der.rindex(signature) - 1] = 1
    assert outcome(vendor, OcspAnswer(bytes(der))) == (True, False, False)
    certificate = next(each for each in certificates(vendor) if not each.signature[-1] & 1)
    changed = bytearray(certificate.public_bytes(Encoding.DER))
    changed[-len(certificate.signature) - 1] = 1
    other = load_certificate(bytes(changed))
    assert (is_signed_by(certificate, certificate), is_signed_by(other, certificate)) == (True, False)


def signature_of(der: bytes) -> bytes:
    return ocsp.load_der_ocsp_response(der).signature


def certificates(vendor: SimulatedVendor) -> Iterator[x509.Certificate]:
    for _ in range(64):
        yield vendor.issue("NVIDIA Device Identity CA", "root", None)
