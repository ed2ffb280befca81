"""Authenticate AMD's certificates: the chain from a pinned ARK to the VCEK or VLEK, and revocation.

Source: AMD 57230 (VCEK, KDS, CRL), 58369 (VLEK), RFC 5280.
Does not check: anything of a report (`verify`), the age of the revocation list (`validate`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.roots import amd
from confide_attestation.snp.abi import Product, Signer
from confide_attestation.snp.certificates import (
    VekExtensions,
    common_name,
    is_authority,
    is_signed_by,
    library_warnings_ignored,
    load_certificate,
    load_crl,
    parse_vek,
    unix_s,
)
from confide_attestation.snp.ids import SnpCheck


@dataclass(frozen=True)
class SnpRoots:
    """The ARKs that are trusted, by SHA-256 of their DER, and the least size of an issuer's RSA key."""

    ark_sha256: Mapping[Product, bytes]
    min_rsa_bits: int
    name: str


@cache
def amd_roots() -> SnpRoots:
    """Return AMD's own, packaged with this code."""
    return SnpRoots(
        {product: _sha256(_packaged(pem)) for product, pem in amd.ARK_PEM.items()}, 4096, "AMD's packaged ARK"
    )


def simulated_roots(ark_sha256: bytes) -> SnpRoots:
    """Return the one ARK of simulated hardware that a policy pins."""
    return SnpRoots(dict.fromkeys(Product, ark_sha256), 2048, "the policy's SIMULATED ARK")


@dataclass(frozen=True)
class Chain:
    """The judged certificates. `vek` is None if its extensions could not be read; `crl` if none was given."""

    vek: VekExtensions | None
    crl: x509.CertificateRevocationList | None
    not_after_unix_s: int


@library_warnings_ignored()
def verify_chain(ledger: Ledger, endorsements: SnpEndorsements, roots: SnpRoots, now_unix_s: int) -> Chain | None:
    """Judge ARK, ASK (or ASVK), VCEK (or VLEK) and the list; None if a certificate cannot be read at all."""
    try:
        vek = load_certificate(endorsements.vek, SnpCheck.VEK_FORMAT)
    except EvidenceMalformed as fault:
        ledger.fail(SnpCheck.VEK_FORMAT, str(fault))
        return None
    ledger.expect(SnpCheck.VEK_FORMAT, True, "a DER certificate", "")
    extensions = None
    try:
        extensions = parse_vek(vek)
        ledger.expect(SnpCheck.VEK_EXTENSIONS, True, f"a {extensions.signer} of {extensions.product}", "")
    except EvidenceMalformed as fault:
        ledger.fail(SnpCheck.VEK_EXTENSIONS, str(fault))
    ask = _issuer(ledger, SnpCheck.ASK_FORMAT, endorsements.ask, extensions)
    ark = _issuer(ledger, SnpCheck.ARK_FORMAT, endorsements.ark, extensions)
    if ask is None or ark is None:
        return None
    speaks_for = None if extensions is None else (extensions.signer, extensions.product)
    faults = _role_faults(vek, ask, ark, speaks_for)
    ledger.expect(SnpCheck.CHAIN_ROLES, not faults, "ARK, ASK and VEK have their names and roles", faults)
    _check_signatures(ledger, roots, extensions, vek, ask, ark)
    limits = [
        _check_window(ledger, check_id, certificate, now_unix_s)
        for check_id, certificate in (
            (SnpCheck.ARK_VALIDITY, ark),
            (SnpCheck.ASK_VALIDITY, ask),
            (SnpCheck.VEK_VALIDITY, vek),
        )
    ]
    crl = _check_revocation(ledger, endorsements.crl, ask, ark, roots, now_unix_s)
    if crl is not None and crl.next_update_utc is not None:
        limits.append(unix_s(crl.next_update_utc))
    return Chain(extensions, crl, min(limits))


def _issuer(
    ledger: Ledger, check_id: SnpCheck, given: bytes | None, vek: VekExtensions | None
) -> x509.Certificate | None:
    """Load the certificate that was given, else the packaged one of the VEK's product and kind."""
    if given is None:
        if vek is None:
            return None
        pems = (
            amd.ARK_PEM
            if check_id is SnpCheck.ARK_FORMAT
            else (amd.ASK_PEM if vek.signer is Signer.VCEK else amd.ASVK_PEM)
        )
        ledger.expect(check_id, True, f"packaged, of {vek.product}", "")
        return _packaged(pems[vek.product])
    try:
        certificate = load_certificate(given, check_id)
    except EvidenceMalformed as fault:
        ledger.fail(check_id, str(fault))
        return None
    ledger.expect(check_id, True, "a DER certificate", "")
    return certificate


@lru_cache(maxsize=256)
def _role_faults(
    vek: x509.Certificate, ask: x509.Certificate, ark: x509.Certificate, speaks_for: tuple[Signer, Product] | None
) -> str:
    """Name what is wrong with the names and roles of a chain; nothing if all is well."""
    faults = []
    if speaks_for is not None:
        signer, product = speaks_for
        if common_name(ask.subject) != ("SEV-VLEK-" if signer is Signer.VLEK else "SEV-") + product:
            faults.append(f"the issuer of a {signer} of {product} has another name")
        if common_name(ark.subject) != "ARK-" + product:
            faults.append(f"the ARK is not that of {product}")
    if vek.issuer != ask.subject or ask.issuer != ark.subject or ark.issuer != ark.subject:
        faults.append("issuer and subject names do not link up")
    if not is_authority(ask) or not is_authority(ark):
        faults.append("ASK or ARK may not issue certificates")
    return "; ".join(faults)


def _check_signatures(
    ledger: Ledger,
    roots: SnpRoots,
    extensions: VekExtensions | None,
    vek: x509.Certificate,
    ask: x509.Certificate,
    ark: x509.Certificate,
) -> None:
    digest = _sha256(ark)
    pins = set(roots.ark_sha256.values()) if extensions is None else {roots.ark_sha256[extensions.product]}
    ledger.expect(
        SnpCheck.ARK_PIN,
        digest in pins,
        f"{roots.name}, SHA-256 {digest.hex()[:16]}…",
        f"the ARK (SHA-256 {digest.hex()[:16]}…) is not {roots.name}",
    )
    for check_id, certificate, issuer, by in (
        (SnpCheck.ARK_SIG, ark, ark, "itself"),
        (SnpCheck.ASK_SIG, ask, ark, "the ARK"),
        (SnpCheck.VEK_SIG, vek, ask, "the ASK"),
    ):
        ledger.expect(
            check_id,
            # A packaged ARK is trusted byte for byte; its own signature, which the tests hold, shows nothing more.
            (certificate is ark and digest in amd_roots().ark_sha256.values())
            or is_signed_by(certificate, issuer, roots.min_rsa_bits),
            f"signed by {by} (RSASSA-PSS, SHA-384)",
            f"the signature does not verify under the key of {by}",
        )


def _check_window(ledger: Ledger, check_id: SnpCheck, certificate: x509.Certificate, now_unix_s: int) -> int:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    ledger.expect(
        check_id,
        unix_s(start) <= now_unix_s <= unix_s(end),
        f"valid until {end:%Y-%m-%d}",
        f"valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}, not at the time of judgement",
    )
    return unix_s(end)


def _check_revocation(
    ledger: Ledger,
    data: bytes | None,
    ask: x509.Certificate,
    ark: x509.Certificate,
    roots: SnpRoots,
    now_unix_s: int,
) -> x509.CertificateRevocationList | None:
    """Judge AMD's list if there is one; `validate.check_crl` judges whether there must be one."""
    if data is None:
        return None
    try:
        crl = load_crl(data)
    except EvidenceMalformed as fault:
        ledger.fail(SnpCheck.CRL_FORMAT, str(fault))
        return None
    ledger.expect(SnpCheck.CRL_FORMAT, True, "a DER revocation list", "")
    ledger.expect(
        SnpCheck.CRL_SIG,
        crl.issuer == ark.subject and is_signed_by(crl, ark, roots.min_rsa_bits),
        "signed by the ARK",
        "not signed by the ARK",
    )
    start, end = crl.last_update_utc, crl.next_update_utc
    ledger.expect(
        SnpCheck.CRL_EXPIRED,
        end is not None and unix_s(start) <= now_unix_s <= unix_s(end),
        f"issued {start:%Y-%m-%d}, next update {end:%Y-%m-%d}" if end else "",
        f"issued {start:%Y-%m-%d}, next update {end:%Y-%m-%d}: not current at the time of judgement"
        if end
        else "names no next update",
    )
    ledger.expect(
        SnpCheck.ASK_REVOKED,
        crl.get_revoked_certificate_by_serial_number(ask.serial_number) is None,
        "the ASK is not on the list (every VCEK has serial 0: a VCEK itself cannot be listed)",
        "the ASK is revoked",
    )
    return crl


@cache
def _packaged(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _sha256(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
