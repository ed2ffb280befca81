"""Find which certificate or list is at fault, once `dcap-qvl` has said that one is; its own words do not tell.

Names faults only: nothing here lets a quote pass that the library refused.
Source: RFC 5280; Intel SGX PCK Certificate and Certificate Revocation List Profile.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from confide_attestation.tdx.abi import TdxQuote
from confide_attestation.tdx.collateral import Collateral
from confide_attestation.tdx.ids import TdxCheck

_FAULTS = (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion)
Faults = dict[TdxCheck, str]


def certificate_faults(quote: TdxQuote, collateral: Collateral, root_der: bytes, now_unix_s: int) -> Faults:
    """Return every fault that can be named, of the quote's chain, the signers of both documents, and the lists."""
    faults: Faults = {}
    with warnings.catch_warnings():
        # The library warns of what is odd in a certificate; here it is a fault or it is none.
        warnings.simplefilter("ignore")
        root = x509.load_der_x509_certificate(root_der)
        _documents(faults, collateral, root, now_unix_s)
        try:
            leaf, ca = (x509.load_der_x509_certificate(der) for der in quote.chain[:2])
            _links(faults, TdxCheck.PCK_CHAIN, TdxCheck.PCK_EXPIRED, (leaf, ca, root), now_unix_s)
            _lists(faults, collateral, leaf, ca, root, now_unix_s)
        except _FAULTS:
            faults.setdefault(TdxCheck.PCK_CHAIN, "a certificate of the quote cannot be read")
    return faults


def _documents(faults: Faults, collateral: Collateral, root: x509.Certificate, now_unix_s: int) -> None:
    for part in ("tcb_info_issuer_chain", "qe_identity_issuer_chain"):
        try:
            signer, *_ = x509.load_pem_x509_certificates(collateral.text(part).encode())
            checks = TdxCheck.TCB_SIGNING_CHAIN, TdxCheck.TCB_SIGNING_CERT_EXPIRED
            _links(faults, *checks, (signer, root), now_unix_s)
            _revoked(faults, TdxCheck.TCB_SIGNING_REVOKED, signer, collateral.root_crl)
        except _FAULTS:
            faults.setdefault(TdxCheck.TCB_SIGNING_CHAIN, f"{part} is not a chain of PEM certificates")


def _lists(
    faults: Faults,
    collateral: Collateral,
    leaf: x509.Certificate,
    ca: x509.Certificate,
    root: x509.Certificate,
    now_unix_s: int,
) -> None:
    for name, crl, issuer in (("PCK", collateral.pck_crl, ca), ("root", collateral.root_crl, root)):
        if crl is None:
            faults.setdefault(TdxCheck.CRL_FORMAT, f"the {name} list is not a DER revocation list")
            continue
        if crl.issuer != issuer.subject:
            found, wanted = _common(crl.issuer), _common(issuer.subject)
            faults.setdefault(TdxCheck.CRL_MISSING_FOR_CA, f"the {name} list is of {found}, not of {wanted}")
        elif not _signed(crl, issuer):
            faults.setdefault(TdxCheck.CRL_SIG, f"the {name} list is not signed by {_common(issuer.subject)}")
        until = crl.next_update_utc
        if until is None or until.timestamp() < now_unix_s:
            ended = "says not until when it is good" if until is None else f"ended on {until:%Y-%m-%d}"
            faults.setdefault(TdxCheck.CRL_EXPIRED, f"the {name} list {ended}; fetch it anew")
    _revoked(faults, TdxCheck.PCK_REVOKED, leaf, collateral.pck_crl)
    _revoked(faults, TdxCheck.CA_REVOKED, ca, collateral.root_crl)


def _links(
    faults: Faults, chain_check: TdxCheck, time_check: TdxCheck, chain: Sequence[x509.Certificate], now_unix_s: int
) -> None:
    for certificate, issuer in pairwise(chain):
        name = _common(certificate.subject)
        try:
            certificate.verify_directly_issued_by(issuer)
        except _FAULTS:
            faults.setdefault(chain_check, f"{name} is not issued by {_common(issuer.subject)}, the one above it")
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not start.timestamp() <= now_unix_s <= end.timestamp():
            faults.setdefault(time_check, f"{name} is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}, not then")


def _revoked(
    faults: Faults, check: TdxCheck, certificate: x509.Certificate, crl: x509.CertificateRevocationList | None
) -> None:
    if crl is not None and crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
        faults.setdefault(check, f"Intel has revoked {_common(certificate.subject)} {certificate.serial_number:x}")


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    return isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)


def _common(name: x509.Name) -> str:
    values = name.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    return repr(str(values[0].value)[:64]) if values else "a certificate without a name"
