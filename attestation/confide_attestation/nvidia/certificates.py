"""Read NVIDIA's certificates and judge a path of them; makes no trust claim until a root's key is compared.

Source: RFC 5280; TCG DICE Attestation Architecture 1.1 (TcbInfo) and NVIDIA/nvtrust for FWIDs.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier, SignatureAlgorithmOID

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.roots import nvidia

MAX_CERTIFICATE_BYTES = 8 * 1024
FWID_BYTES = 48
PDI_BYTES = 8
_REMEMBERED = 512
_ES384_COMPONENT_BYTES = 48
_READ_FAULTS = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)
_UNDERSTOOD = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE}
_PDI = re.compile(r"[0-9A-Fa-f]{18}")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----[ \r\n]*")

OID_FWID = ObjectIdentifier("2.23.133.5.4.1")
OID_TCB_INFO = ObjectIdentifier("2.23.133.5.4.1.1")
# SEQUENCE { OID sha384, OCTET STRING of 48 bytes }, up to the digest.
FWID_HEAD = bytes.fromhex("303d06096086480165030402020430")
_FWIDS_TAG = 0xA6
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True)
class Path:
    """Certificates from leaf to root with what is wrong with them; each fault is empty if all is well."""

    certificates: tuple[x509.Certificate, ...]
    role_faults: str
    signature_faults: str
    root_spki_sha256: bytes
    not_before_unix_s: int
    not_after_unix_s: int

    @property
    def leaf_key(self) -> ec.EllipticCurvePublicKey:
        """Return the leaf's key; call only if `role_faults` is empty."""
        key = self.certificates[0].public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - a role fault otherwise
        return key


def split_pem(data: bytes) -> tuple[bytes, ...]:
    """Return the DER of each certificate of a PEM file that holds nothing else.

    Raises: EvidenceMalformed. Does not check: that the contents are certificates.
    """
    found: list[bytes] = []
    at = len(data) - len(data.lstrip(b" \r\n"))
    while match := _PEM.match(data, at):
        found.append(strict_base64(b"".join(match[1].split())))
        at = match.end()
    if at != len(data) or not found:
        raise EvidenceMalformed("expected certificates in PEM and nothing else")
    return tuple(found)


def strict_base64(text: bytes) -> bytes:
    """Decode base64 in its only canonical form. Raises: EvidenceMalformed."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise EvidenceMalformed("not base64") from None
    if base64.b64encode(data) != text:
        raise EvidenceMalformed("not canonical base64")
    return data


@lru_cache(maxsize=_REMEMBERED)
def load_certificate(der: bytes) -> x509.Certificate:
    """Load one certificate and read it whole. Raises: EvidenceMalformed."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise EvidenceMalformed(f"a certificate of {len(der)} bytes is too large")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # The library reads lazily; what cannot be read shall show here and nowhere later.
        _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        _ = certificate.signature_algorithm_oid
    except _READ_FAULTS:
        raise EvidenceMalformed("not a DER certificate") from None
    return certificate


def judge_path(certificates: Sequence[x509.Certificate]) -> Path:
    """Judge order, roles and signatures of a path, leaf first, its self-signed root last.

    Does not check: that the root is trusted, validity, revocation, names beyond their links.
    """
    chain = tuple(certificates)
    faults = [fault for place, each in enumerate(chain) if (fault := _role_fault(each, place))]
    issuers = (*chain[1:], chain[-1])
    if any(each.issuer != issuer.subject for each, issuer in zip(chain, issuers, strict=True)):
        faults.append("issuer and subject names do not link up, leaf first")
    unsigned = [
        common_name(each.subject) or "?"
        for each, issuer in zip(chain, issuers, strict=True)
        if not is_signed_by(each, issuer)
    ]
    return Path(
        certificates=chain,
        role_faults="; ".join(dict.fromkeys(faults)),
        signature_faults=", ".join(unsigned),
        root_spki_sha256=spki_sha256(chain[-1]),
        not_before_unix_s=max(int(each.not_valid_before_utc.timestamp()) for each in chain),
        not_after_unix_s=min(int(each.not_valid_after_utc.timestamp()) for each in chain),
    )


def _role_fault(certificate: x509.Certificate, place: int) -> str:
    """Name what keeps a certificate from its place: 0 is the leaf, n stands above n - 1 others."""
    name = common_name(certificate.subject) or "a certificate"
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        return f"{name} has no key on P-384"
    if any(each.critical and each.oid not in _UNDERSTOOD for each in certificate.extensions):
        return f"{name} has a critical extension that is not known here"
    constraints = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    authority = constraints is not None and constraints.ca
    if place == 0:
        if authority or usage is None or not usage.digital_signature or usage.key_cert_sign:
            return f"{name} may issue certificates or may not sign, and stands as the leaf"
        return ""
    if not authority or usage is None or not usage.key_cert_sign:
        return f"{name} may not issue certificates"
    if constraints is not None and constraints.path_length is not None and constraints.path_length < place - 1:
        return f"{name} may not stand above {place - 1} authorities"
    return ""


@lru_cache(maxsize=_REMEMBERED)
def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Check ECDSA with SHA-384 by the issuer's P-384 key, NVIDIA's only form, inside as outside."""
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        return False
    der = certificate.public_bytes(Encoding.DER)
    if certificate == issuer and der in _packaged_roots():
        return True
    # A BIT STRING may also say that some of its last bits do not count: nothing outside what is signed is free.
    if not der.endswith(b"\0" + certificate.signature):
        return False
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        return False
    try:
        # Compares names and the inner with the outer algorithm, then verifies.
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


@cache
def _packaged_roots() -> frozenset[bytes]:
    """Return the roots that are trusted byte for byte, so that their own signatures show nothing more."""
    return frozenset(
        der for text in (nvidia.DEVICE_ROOT_PEM, nvidia.RIM_ROOT_PEM) for der in split_pem(text.encode())
    )


def verify_raw(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    """Check ECDSA P-384 with SHA-384, r and s as 48 bytes each, big-endian. Malleable: (r, n - s) holds too."""
    if len(signature) != 2 * _ES384_COMPONENT_BYTES:
        return False
    r, s = signature[:_ES384_COMPONENT_BYTES], signature[_ES384_COMPONENT_BYTES:]
    try:
        der = utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        key.verify(der, signed, ec.ECDSA(SHA384()))
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=_REMEMBERED)
def read_fwid(leaf: x509.Certificate) -> bytes:
    """Return the SHA-384 of the firmware that holds the leaf's key, by either of NVIDIA's two extensions.

    Raises: EvidenceMalformed if there is none, or are both, or its form is unknown.
    """
    values = {
        each.oid: each.value.value
        for each in leaf.extensions
        if each.oid in (OID_FWID, OID_TCB_INFO) and isinstance(each.value, x509.UnrecognizedExtension)
    }
    if len(values) != 1:
        raise EvidenceMalformed("the leaf has no FWID, or two")
    ((oid, value),) = values.items()
    # Blackwell's second FWID is all zeros, so there the first counts; Hopper has one, at the end.
    at = len(value) - FWID_BYTES - len(FWID_HEAD) if oid == OID_FWID else _first_fwid(value)
    if at < 0 or value[at : at + len(FWID_HEAD)] != FWID_HEAD:
        raise EvidenceMalformed("the leaf's FWID is not a SHA-384 digest")
    digest = value[at + len(FWID_HEAD) :][:FWID_BYTES]
    if len(digest) != FWID_BYTES:
        raise EvidenceMalformed("the leaf's FWID is cut off")
    return digest


def _first_fwid(tcb_info: bytes) -> int:
    """Return where the first FWID of a DiceTcbInfo begins, or -1."""
    at, end = _contents(tcb_info, 0, 0x30)
    if end != len(tcb_info):
        return -1
    while 0 <= at < end:
        tag = tcb_info[at]
        start, after = _contents(tcb_info, at, tag)
        if tag == _FWIDS_TAG:
            return start
        at = after
    return -1


def _contents(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """Return where the contents of the element at `at` begin and end, or (-1, -1)."""
    if at + 2 > len(der) or der[at] != tag:
        return -1, -1
    size, start = der[at + 1], at + 2
    if size == 0x81 and at + 3 <= len(der):
        size, start = der[at + 2], at + 3
    elif size >= 0x80:
        return -1, -1
    return (start, start + size) if start + size <= len(der) else (-1, -1)


def spki_sha256(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).digest()


def pdi(certificate: x509.Certificate) -> bytes | None:
    """Return the eight bytes that name a chip, which end its boot ROM's serial number; None if there are none."""
    values = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    if len(values) != 1 or not _PDI.fullmatch(str(values[0].value)):
        return None
    return bytes.fromhex(str(values[0].value))[-PDI_BYTES:]


def common_name(name: x509.Name) -> str:
    """Return the only common name, or nothing if there is none or more than one."""
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return str(values[0]) if len(values) == 1 else ""


def extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """Return a certificate's extension of a kind, or None."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
