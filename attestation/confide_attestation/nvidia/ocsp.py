"""Judge recorded OCSP answers for the certificates of devices and manifests.

Source: RFC 6960. NVIDIA answers with ECDSA P-384, by a responder delegated for each authority, good for 24 hours.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from confide_protocol import labels
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import (
    common_name,
    extension,
    is_signed_by,
    strict_base64,
    verify_raw,
)

MAX_ANSWER_BYTES = 16 * 1024
_COMPONENT_BYTES = 48
_MAX_SIGNATURE_BYTES = 104
_ECDSA_WITH_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
_HASHES = ("sha1", "sha256", "sha384")
_READ_FAULTS = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


@dataclass(frozen=True)
class OcspAnswer:
    """One answer in DER. `asked_nonce` is what the request carried, and then the answer must echo it."""

    der: bytes
    asked_nonce: bytes | None = None


@dataclass(frozen=True)
class PathAnswers:
    """What a path's answers fail in; each fault is empty if all is well. `held` are on hold, so not `revoked`.

    `oldest_unix_s` is when the oldest answer was given, `ends_unix_s` when the first ceases to count.
    """

    unanswered: str
    out_of_window: str
    revoked: str
    held: str
    oldest_unix_s: int | None
    ends_unix_s: int | None


def read_answer(data: bytes) -> OcspAnswer:
    """Read a file that holds one answer as DER or base64. Raises: EvidenceMalformed if it is none."""
    if len(data) > MAX_ANSWER_BYTES:
        raise EvidenceMalformed(f"an OCSP answer of {len(data)} bytes is too large")
    der = data if data[:1] == b"\x30" else strict_base64(b"".join(data.split()))
    _parse(der)
    return OcspAnswer(der)


def judge_revocation(
    path: Sequence[x509.Certificate], answers: Sequence[OcspAnswer], now_unix_s: int
) -> PathAnswers:
    """Judge `path`, leaf first, whose last member only issues. Each certificate before it needs an answer.

    Answers for other certificates are left alone. Does not check: that the path itself holds.
    """
    unanswered, out_of_window, starts, ends = [], [], [], []
    by_serial = _by_serial(tuple(answers))
    revoked: list[str] = []
    held: list[str] = []
    for subject, issuer in pairwise(path):
        name = common_name(subject.subject) or "a certificate"
        about = by_serial.get(subject.serial_number, ())
        found = [each for answer in about if (each := _authentic(answer, subject, issuer)) is not None]
        if not found:
            unanswered.append(name)
            continue
        # One answer that is not good outweighs any number that are.
        bad = [each for each in found if each.certificate_status is not ocsp.OCSPCertStatus.GOOD]
        if bad:
            on_hold = all(each.revocation_reason is x509.ReasonFlags.certificate_hold for each in bad)
            (held if on_hold else revoked).append(name)
        answer = max(found, key=lambda each: each.this_update_utc)
        if not _in_window(answer, now_unix_s):
            out_of_window.append(name)
        starts.append(int(answer.this_update_utc.timestamp()))
        if answer.next_update_utc is not None:
            ends.append(int(answer.next_update_utc.timestamp()))
        ends += [int(each.not_valid_after_utc.timestamp()) for each in answer.certificates]
    return PathAnswers(
        ", ".join(unanswered),
        ", ".join(out_of_window),
        ", ".join(revoked),
        ", ".join(held),
        min(starts, default=None),
        min(ends, default=None),
    )


@lru_cache(maxsize=16)
def _by_serial(answers: tuple[OcspAnswer, ...]) -> Mapping[int, Sequence[OcspAnswer]]:
    """Sort answers that can be read by the serial number that they are about."""
    found: dict[int, list[OcspAnswer]] = {}
    for answer in answers:
        response = _single(answer.der)
        if response is not None:
            found.setdefault(response.serial_number, []).append(answer)
    return found


def _authentic(answer: OcspAnswer, subject: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPResponse | None:
    """Return the answer if it is about `subject` and was given in `issuer`'s name."""
    response = _answers(answer.der, subject, issuer)
    if response is None or answer.asked_nonce is None:
        return response
    try:
        nonce = response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None
    return response if nonce == answer.asked_nonce else None


@lru_cache(maxsize=512)
def _answers(der: bytes, subject: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPResponse | None:
    response = _single(der)
    known = response is not None and _names(response, subject, issuer) and _is_signed(response, issuer)
    return response if known else None


def _single(der: bytes) -> ocsp.OCSPResponse | None:
    """Return an answer about one certificate; None for any other."""
    try:
        response = _parse(der)
    except EvidenceMalformed:
        return None
    successful = response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    return response if successful and len(list(response.responses)) == 1 else None


def _names(response: ocsp.OCSPResponse, subject: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Compare the CertID: the issuer's name and key, and the serial number."""
    algorithm = response.hash_algorithm.name
    if algorithm not in _HASHES or response.serial_number != subject.serial_number:
        return False
    key = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    # SHA-1 only ever finds the certificate here; the signature covers the answer with SHA-384.
    return (
        response.issuer_name_hash == hashlib.new(algorithm, issuer.subject.public_bytes()).digest()
        and response.issuer_key_hash == hashlib.new(algorithm, key).digest()
    )


def _is_signed(response: ocsp.OCSPResponse, issuer: x509.Certificate) -> bool:
    """Check the signature by the issuer itself, or by a responder that the issuer delegated."""
    if (
        response.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384
        or len(response.signature) > _MAX_SIGNATURE_BYTES
    ):
        return False
    # The algorithm without parameters, and a signature of whole bytes: nothing outside what is signed is free.
    tail = _ECDSA_WITH_SHA384 + bytes((0x03, len(response.signature) + 1, 0)) + response.signature
    if not response.public_bytes(Encoding.DER).partition(response.tbs_response_bytes)[2].startswith(tail):
        return False
    signer = _signer(response, issuer)
    key = None if signer is None else signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        return False
    try:
        numbers = utils.decode_dss_signature(response.signature)
        raw = b"".join(number.to_bytes(_COMPONENT_BYTES, "big") for number in numbers)
    except (ValueError, OverflowError):
        return False
    return verify_raw(key, raw, response.tbs_response_bytes)


def _signer(response: ocsp.OCSPResponse, issuer: x509.Certificate) -> x509.Certificate | None:
    if not response.certificates:
        return issuer
    for each in response.certificates:
        if each == issuer:
            return issuer
        purposes = extension(each, x509.ExtendedKeyUsage)
        usage, constraints = extension(each, x509.KeyUsage), extension(each, x509.BasicConstraints)
        if (
            purposes is not None
            and ExtendedKeyUsageOID.OCSP_SIGNING in purposes
            and (usage is None or usage.digital_signature)
            and not (constraints is not None and constraints.ca)
            and is_signed_by(each, issuer)
        ):
            return each
    return None


def _in_window(response: ocsp.OCSPResponse, now_unix_s: int) -> bool:
    if response.next_update_utc is None:
        return False
    starts, ends = response.this_update_utc.timestamp(), response.next_update_utc.timestamp()
    responders_hold = all(
        each.not_valid_before_utc.timestamp() <= now_unix_s <= each.not_valid_after_utc.timestamp()
        for each in response.certificates
    )
    return starts - labels.DATE_TOLERANCE_S <= now_unix_s < ends and responders_hold


@lru_cache(maxsize=512)
def _parse(der: bytes) -> ocsp.OCSPResponse:
    try:
        with warnings.catch_warnings():
            # What the library only warns of is judged here, and an answer's bytes are nothing for stderr.
            warnings.simplefilter("ignore")
            return _read(der)
    except _READ_FAULTS:
        raise EvidenceMalformed("not an OCSP answer that can be read here") from None


def _read(der: bytes) -> ocsp.OCSPResponse:
    response = ocsp.load_der_ocsp_response(der)
    if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
        # The library reads lazily; what cannot be read shall show here and nowhere later.
        singles = list(response.responses)
        if len(singles) == 1:
            _ = (response.this_update_utc, response.next_update_utc, response.certificate_status)
            _ = (response.serial_number, response.hash_algorithm, response.extensions)
            _ = response.revocation_reason
        _ = [each.public_key() for each in response.certificates]
        _ = [each.extensions for each in response.certificates]
        _ = (response.signature_algorithm_oid, response.tbs_response_bytes)
    return response
