"""Authenticate a report: chain to a pinned ARK, revocation, signature, and what the signer's certificate says.

Source: AMD 56860 (report), 57230 (VCEK, KDS, CRL), 58369 (VLEK).
Does not check: any claim against a policy (`validate`), the binding to a keyset (`checks.binding`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from confide_attestation.checks.ids import CheckId
from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.roots import amd
from confide_attestation.snp import abi
from confide_attestation.snp.abi import Product, Signer, SnpReport
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
        vek = load_certificate(endorsements.vek, CheckId.VEK_FORMAT)
    except EvidenceMalformed as fault:
        ledger.fail(CheckId.VEK_FORMAT, str(fault))
        return None
    ledger.expect(CheckId.VEK_FORMAT, True, "a DER certificate", "")
    extensions = None
    try:
        extensions = parse_vek(vek)
        ledger.expect(CheckId.VEK_EXTENSIONS, True, f"a {extensions.signer} of {extensions.product}", "")
    except EvidenceMalformed as fault:
        ledger.fail(CheckId.VEK_EXTENSIONS, str(fault))
    ask = _issuer(ledger, CheckId.ASK_FORMAT, endorsements.ask, extensions)
    ark = _issuer(ledger, CheckId.ARK_FORMAT, endorsements.ark, extensions)
    if ask is None or ark is None:
        return None
    speaks_for = None if extensions is None else (extensions.signer, extensions.product)
    faults = _role_faults(vek, ask, ark, speaks_for)
    ledger.expect(CheckId.CHAIN_ROLES, not faults, "ARK, ASK and VEK have their names and roles", faults)
    _check_signatures(ledger, roots, extensions, vek, ask, ark)
    limits = [
        _check_window(ledger, check_id, certificate, now_unix_s)
        for check_id, certificate in (
            (CheckId.ARK_VALIDITY, ark),
            (CheckId.ASK_VALIDITY, ask),
            (CheckId.VEK_VALIDITY, vek),
        )
    ]
    crl = _check_revocation(ledger, endorsements.crl, ask, ark, roots, now_unix_s)
    if crl is not None and crl.next_update_utc is not None:
        limits.append(unix_s(crl.next_update_utc))
    return Chain(extensions, crl, min(limits))


def verify_report(ledger: Ledger, data: bytes, chain: Chain | None) -> SnpReport | None:
    """Judge a report's form, its signature and its agreement with the signer's certificate.

    Returns the report if it could be read at all: that is no verdict, the ledger holds it.
    """
    try:
        report = abi.parse_report(data)
    except EvidenceMalformed as fault:
        if fault.check == CheckId.REPORT_VERSION:
            ledger.expect(CheckId.REPORT_SIZE, True, f"{abi.REPORT_BYTES} bytes", "")
        ledger.fail(CheckId(fault.check), str(fault))
        return None
    ledger.expect(CheckId.REPORT_SIZE, True, f"{abi.REPORT_BYTES} bytes", "")
    ledger.expect(CheckId.REPORT_VERSION, True, f"version {report.version}", "")
    _check_form(ledger, report)
    vek = chain.vek if chain is not None else None
    product = product_of(report, vek)
    _check_product(ledger, report, vek, product)
    reserved = report.reserved + b"".join(
        abi.tcb_reserved(tcb, product)
        for tcb in (report.current_tcb, report.reported_tcb, report.committed_tcb, report.launch_tcb)
        if product is not None
    )
    ledger.expect(
        CheckId.REPORT_RESERVED, not any(reserved), "reserved fields are zero", "a reserved field is not zero"
    )
    if vek is not None:
        _check_signer(ledger, report, vek, product)
        ledger.expect(
            CheckId.REPORT_SIG,
            _signature_holds(report, vek.key),
            f"signed by the {vek.signer}'s key (ECDSA P-384, SHA-384)",
            f"the signature does not verify under the {vek.signer}'s key",
        )
    return report


def product_of(report: SnpReport, vek: VekExtensions | None) -> Product | None:
    """Name the report's product: by CPUID from version 3, by the certificate in version 2."""
    if report.cpuid is not None:
        return abi.product_of_cpuid(report.cpuid)
    return vek.product if vek is not None else None


def _issuer(
    ledger: Ledger, check_id: CheckId, given: bytes | None, vek: VekExtensions | None
) -> x509.Certificate | None:
    """Load the certificate that was given, else the packaged one of the VEK's product and kind."""
    if given is None:
        if vek is None:
            return None
        pems = (
            amd.ARK_PEM
            if check_id is CheckId.ARK_FORMAT
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
        CheckId.ARK_PIN,
        digest in pins,
        f"{roots.name}, SHA-256 {digest.hex()[:16]}…",
        f"the ARK (SHA-256 {digest.hex()[:16]}…) is not {roots.name}",
    )
    for check_id, certificate, issuer, by in (
        (CheckId.ARK_SIG, ark, ark, "itself"),
        (CheckId.ASK_SIG, ask, ark, "the ARK"),
        (CheckId.VEK_SIG, vek, ask, "the ASK"),
    ):
        ledger.expect(
            check_id,
            is_signed_by(certificate, issuer, roots.min_rsa_bits),
            f"signed by {by} (RSASSA-PSS, SHA-384)",
            f"the signature does not verify under the key of {by}",
        )


def _check_window(ledger: Ledger, check_id: CheckId, certificate: x509.Certificate, now_unix_s: int) -> int:
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
        ledger.fail(CheckId.CRL_FORMAT, str(fault))
        return None
    ledger.expect(CheckId.CRL_FORMAT, True, "a DER revocation list", "")
    ledger.expect(
        CheckId.CRL_SIG,
        crl.issuer == ark.subject and is_signed_by(crl, ark, roots.min_rsa_bits),
        "signed by the ARK",
        "not signed by the ARK",
    )
    start, end = crl.last_update_utc, crl.next_update_utc
    ledger.expect(
        CheckId.CRL_EXPIRED,
        end is not None and unix_s(start) <= now_unix_s <= unix_s(end),
        f"issued {start:%Y-%m-%d}, next update {end:%Y-%m-%d}" if end else "",
        f"issued {start:%Y-%m-%d}, next update {end:%Y-%m-%d}: not current at the time of judgement"
        if end
        else "names no next update",
    )
    ledger.expect(
        CheckId.ASK_REVOKED,
        crl.get_revoked_certificate_by_serial_number(ask.serial_number) is None,
        "the ASK is not on the list (every VCEK has serial 0: a VCEK itself cannot be listed)",
        "the ASK is revoked",
    )
    return crl


def _check_form(ledger: Ledger, report: SnpReport) -> None:
    ledger.expect(
        CheckId.SIG_ALGO,
        report.signature_algo == abi.ECDSA_P384_SHA384,
        "ECDSA P-384 with SHA-384",
        f"algorithm {report.signature_algo} is not 1 (ECDSA P-384 with SHA-384)",
    )
    ledger.expect(
        CheckId.SIG_PADDING,
        not any(report.signature_padding),
        "the signature's padding is zero",
        "the signature's padding is not zero",
    )
    ledger.expect(
        CheckId.SIGNING_KEY,
        report.signing_key in abi.SIGNING_KEYS,
        f"signed by a {abi.SIGNING_KEYS.get(report.signing_key)}",
        "no key signed this report" if report.signing_key == 7 else f"signing key {report.signing_key} is unknown",
    )
    policy = report.policy
    ledger.expect(
        CheckId.DEBUG, not policy & abi.PolicyBit.DEBUG, "debugging is off", "the host may debug this guest"
    )
    ledger.expect(
        CheckId.MIGRATE_MA,
        not policy & abi.PolicyBit.MIGRATE_MA,
        "no migration agent",
        "a migration agent may move this guest",
    )
    ledger.expect(
        CheckId.POLICY_MBO,
        bool(policy & abi.PolicyBit.MUST_BE_ONE),
        "guest policy bit 17 is one",
        "guest policy bit 17 is not one",
    )
    ledger.expect(
        CheckId.POLICY_MBZ,
        not policy & abi.PolicyBit.MUST_BE_ZERO,
        "guest policy bits 26 to 63 are zero",
        "guest policy bits 26 to 63 are not zero",
    )


def _check_product(ledger: Ledger, report: SnpReport, vek: VekExtensions | None, product: Product | None) -> None:
    if report.cpuid is None:
        ledger.expect(CheckId.UNKNOWN_CPUID, True, "a version 2 report has no CPUID; the certificate decides", "")
    else:
        family, model, stepping = report.cpuid
        name = f"family {family:#x}, model {model:#x}, stepping {stepping:#x}"
        ledger.expect(CheckId.UNKNOWN_CPUID, product is not None, name, f"{name} is no product known here")
    if product is not None and vek is not None:
        ledger.expect(
            CheckId.PRODUCT_MISMATCH,
            product is vek.product,
            f"report and certificate are of {product}",
            f"the report is of {product}, the certificate of {vek.product}",
        )


def _check_signer(ledger: Ledger, report: SnpReport, vek: VekExtensions, product: Product | None) -> None:
    if report.signing_key in abi.SIGNING_KEYS:
        named = abi.SIGNING_KEYS[report.signing_key]
        ledger.expect(
            CheckId.SIGNING_KEY_MISMATCH,
            named is vek.signer,
            f"report and certificate name a {named}",
            f"the report names a {named}, the certificate is a {vek.signer}",
        )
    if product is not None:
        reported = abi.decode_tcb(report.reported_tcb, product)
        wrong = [
            f"{part}: certificate {vek.tcb.get(part, 'none')}, report {level}"
            for part, level in reported.items()
            if vek.tcb.get(part) != level
        ]
        shown = ", ".join(f"{part} {level}" for part, level in reported.items())
        ledger.expect(CheckId.TCB_MISMATCH, not wrong, f"both say {shown}", "; ".join(wrong))
    if vek.signer is Signer.VLEK:
        for check_id in (CheckId.CHIP_ID_MASKED, CheckId.HWID_MISSING, CheckId.HWID_MISMATCH):
            ledger.expect(check_id, True, f"a VLEK speaks for a cloud ({vek.csp_id}), not for a chip", "")
        return
    masked = report.chip_key_masked or not any(report.chip_id)
    ledger.expect(CheckId.CHIP_ID_MASKED, not masked, "the chip is named", "the host hides the chip's id or key")
    hwid = vek.hwid
    if ledger.expect(
        CheckId.HWID_MISSING, hwid is not None, "the certificate names a chip", "the VCEK names no chip"
    ):
        hwid = hwid or b""
        size = 8 if vek.product is Product.TURIN else 64
        if not masked:
            ledger.expect(
                CheckId.HWID_MISMATCH,
                len(hwid) == size and report.chip_id == hwid.ljust(64, b"\0"),
                "report and certificate name the same chip",
                "report and certificate name different chips",
            )


def _signature_holds(report: SnpReport, key: ec.EllipticCurvePublicKey) -> bool:
    try:
        signature = utils.encode_dss_signature(report.signature_r, report.signature_s)
        key.verify(signature, report.signed, ec.ECDSA(SHA384()))
    except (InvalidSignature, ValueError):
        return False
    return True


@cache
def _packaged(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _sha256(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
