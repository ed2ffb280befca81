"""Read AMD's certificates: VCEK and VLEK extensions, chains, lists; makes no trust claim.

Source: AMD 57230 (VCEK Certificate and KDS Interface), 58369 (VLEK), table "Extensions".
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier, SignatureAlgorithmOID

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.snp.abi import TCB_LAYOUT, Product, Signer

MAX_CERTIFICATE_BYTES = 16 * 1024
MAX_CRL_BYTES = 256 * 1024
MAX_RSA_BITS = 4096
PSS_SALT_BYTES = 48

_AMD = "1.3.6.1.4.1.3704.1"
OID_STRUCT_VERSION = ObjectIdentifier(f"{_AMD}.1")
OID_PRODUCT = ObjectIdentifier(f"{_AMD}.2")
OID_HWID = ObjectIdentifier(f"{_AMD}.4")
OID_CSP_ID = ObjectIdentifier(f"{_AMD}.5")
OID_SPL: Mapping[str, ObjectIdentifier] = {
    "bl": ObjectIdentifier(f"{_AMD}.3.1"),
    "tee": ObjectIdentifier(f"{_AMD}.3.2"),
    "snp": ObjectIdentifier(f"{_AMD}.3.3"),
    "ucode": ObjectIdentifier(f"{_AMD}.3.8"),
    "fmc": ObjectIdentifier(f"{_AMD}.3.9"),
}
# Certificates come again and again; what is remembered follows from their bytes alone, never from a clock.
_REMEMBERED = 256
_READ_FAULTS = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)


@dataclass(frozen=True)
class VekExtensions:
    """What a VCEK or VLEK says of the chip, firmware or cloud that it speaks for."""

    product: Product
    signer: Signer
    tcb: Mapping[str, int]
    hwid: bytes | None
    csp_id: str | None
    key: ec.EllipticCurvePublicKey


@contextmanager
def library_warnings_ignored() -> Iterator[None]:
    """Keep `cryptography` from warning of what is so in AMD's certificates, or judged here anyway."""
    with warnings.catch_warnings():
        # Every VCEK has the serial number 0.
        warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")
        warnings.filterwarnings("ignore", message="Attribute's length must be")
        yield


def load_certificate(data: bytes, check: str) -> x509.Certificate:
    """Load one DER certificate. Raises: EvidenceMalformed with `check`."""
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise EvidenceMalformed(f"a certificate of {len(data)} bytes is too large", check)
    try:
        return _load_der(data)
    except _READ_FAULTS:
        raise EvidenceMalformed("not a DER certificate", check) from None


@lru_cache(maxsize=_REMEMBERED)
def _load_der(data: bytes) -> x509.Certificate:
    certificate = x509.load_der_x509_certificate(data)
    # The library reads lazily; what cannot be read shall show here and nowhere later.
    _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
    _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.signature_algorithm_oid)
    return certificate


def load_crl(data: bytes) -> x509.CertificateRevocationList:
    """Load one DER list. Raises: EvidenceMalformed."""
    if len(data) > MAX_CRL_BYTES:
        raise EvidenceMalformed(f"a revocation list of {len(data)} bytes is too large", "crl_format")
    try:
        return _load_crl_der(data)
    except _READ_FAULTS:
        raise EvidenceMalformed("not a DER revocation list", "crl_format") from None


@lru_cache(maxsize=_REMEMBERED)
def _load_crl_der(data: bytes) -> x509.CertificateRevocationList:
    crl = x509.load_der_x509_crl(data)
    # As above: read whole, so that nothing is left to fail later.
    _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc, crl.signature_algorithm_oid, list(crl))
    return crl


@lru_cache(maxsize=_REMEMBERED)
def parse_vek(certificate: x509.Certificate) -> VekExtensions:
    """Read the key and extensions of a VCEK or VLEK from `load_certificate`.

    Raises: EvidenceMalformed with check `vek_extensions`.
    """
    key = certificate.public_key()
    unrecognized = (e for e in certificate.extensions if isinstance(e.value, x509.UnrecognizedExtension))
    values = {e.oid: e.value.value for e in unrecognized}
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EvidenceMalformed("the key is not on P-384", "vek_extensions")
    name = common_name(certificate.subject)
    signers = {f"SEV-{signer}": signer for signer in Signer}
    if name not in signers:
        raise EvidenceMalformed("the subject is neither SEV-VCEK nor SEV-VLEK", "vek_extensions")
    signer = signers[name]
    product = _product(values.get(OID_PRODUCT))
    hwid, csp_id = values.get(OID_HWID), values.get(OID_CSP_ID)
    if signer is Signer.VCEK and csp_id is not None:
        raise EvidenceMalformed("a VCEK names a cloud", "vek_extensions")
    if signer is Signer.VLEK and (hwid is not None or csp_id is None):
        raise EvidenceMalformed("a VLEK names a chip, or no cloud", "vek_extensions")
    return VekExtensions(
        product=product,
        signer=signer,
        tcb={part: _spl(values.get(OID_SPL[part]), part) for part in TCB_LAYOUT[product]},
        hwid=hwid,
        csp_id=None if csp_id is None else _ia5(csp_id),
        key=key,
    )


def is_signed_by(
    item: x509.Certificate | x509.CertificateRevocationList, issuer: x509.Certificate, min_rsa_bits: int
) -> bool:
    """Check RSASSA-PSS with SHA-384 and a 48-byte salt, AMD's only form, by an RSA key of enough bits."""
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or not min_rsa_bits <= key.key_size <= MAX_RSA_BITS:
        return False
    if len(item.signature) != key.key_size // 8:
        return False
    if item.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        return False
    signed = item.tbs_certificate_bytes if isinstance(item, x509.Certificate) else item.tbs_certlist_bytes
    # RFC 5280 4.1.1.2: the algorithm beside the signature is the one inside what is signed, parameters included.
    tail = b"\x03\x82" + (1 + len(item.signature)).to_bytes(2, "big") + b"\0" + item.signature
    algorithm, found, _ = item.public_bytes(Encoding.DER).partition(signed)[2].partition(tail)
    return bool(found) and algorithm in signed and _pss_holds(issuer, item.signature, signed)


@lru_cache(maxsize=_REMEMBERED)
def _pss_holds(issuer: x509.Certificate, signature: bytes, signed: bytes) -> bool:
    key = issuer.public_key()
    assert isinstance(key, rsa.RSAPublicKey)  # noqa: S101 - is_signed_by looked
    try:
        key.verify(signature, signed, padding.PSS(padding.MGF1(SHA384()), PSS_SALT_BYTES), SHA384())
    except InvalidSignature:
        return False
    return True


def is_authority(certificate: x509.Certificate) -> bool:
    """Say whether a certificate may issue others."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign


def common_name(name: x509.Name) -> str:
    """Return the only common name, or nothing if there is none or more than one."""
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return str(values[0]) if len(values) == 1 else ""


def unix_s(moment: datetime) -> int:
    return int(moment.timestamp())


def _product(value: bytes | None) -> Product:
    """Read "Milan-B0", "Genoa", "Turin": stepping is not part of the product."""
    if value is not None:
        name = _ia5(value).split("-")[0]
        if name in set(Product):
            return Product(name)
    raise EvidenceMalformed("the product is absent or unknown", "vek_extensions")


def _ia5(value: bytes) -> str:
    if len(value) < 2 or value[0] != 0x16 or value[1] != len(value) - 2 or not _is_printable(value[2:]):
        raise EvidenceMalformed("an extension is not an IA5String", "vek_extensions")
    return value[2:].decode("ascii")


def _is_printable(text: bytes) -> bool:
    return text.isascii() and text.decode().isprintable()


def _spl(value: bytes | None, part: str) -> int:
    """Read a security patch level: a DER INTEGER of one byte's range, in its shortest form."""
    if value is not None and value[:2] == b"\x02\x01" and len(value) == 3 and value[2] < 0x80:
        return value[2]
    if value is not None and value[:3] == b"\x02\x02\x00" and len(value) == 4 and value[3] >= 0x80:
        return value[3]
    raise EvidenceMalformed(f"the patch level of {part} is absent or not a small integer", "vek_extensions")
