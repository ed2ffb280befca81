"""Authenticate a report: its form, its agreement with the signer's certificate, its signature.

Source: AMD 56860 (SEV-SNP Firmware ABI).
Does not check: the certificates (`chain`), claims against a policy (`validate`), the binding to a keyset.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA384

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.snp import abi
from confide_attestation.snp.abi import PolicyBit, Product, Signer, SnpReport
from confide_attestation.snp.certificates import VekExtensions
from confide_attestation.snp.chain import Chain
from confide_attestation.snp.ids import SnpCheck


def verify_report(ledger: Ledger, data: bytes, chain: Chain | None) -> SnpReport | None:
    """Judge a report's form, its signature and its agreement with the signer's certificate.

    Returns the report if it could be read at all: that is no verdict, the ledger holds it.
    """
    try:
        report = abi.parse_report(data)
    except EvidenceMalformed as fault:
        if fault.check == SnpCheck.REPORT_VERSION:
            ledger.expect(SnpCheck.REPORT_SIZE, True, f"{abi.REPORT_BYTES} bytes", "")
        ledger.fail(SnpCheck(fault.check), str(fault))
        return None
    ledger.expect(SnpCheck.REPORT_SIZE, True, f"{abi.REPORT_BYTES} bytes", "")
    ledger.expect(SnpCheck.REPORT_VERSION, True, f"version {report.version}", "")
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
        SnpCheck.REPORT_RESERVED, not any(reserved), "reserved fields are zero", "a reserved field is not zero"
    )
    if vek is not None:
        _check_signer(ledger, report, vek, product)
        ledger.expect(
            SnpCheck.REPORT_SIG,
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


def _check_form(ledger: Ledger, report: SnpReport) -> None:
    algo, padding, key, policy = report.signature_algo, report.signature_padding, report.signing_key, report.policy
    signer = abi.SIGNING_KEYS.get(key)
    unsigned = "no key signed this report" if key == 7 else f"signing key {key} is unknown"
    unmovable = not policy & PolicyBit.MIGRATE_MA
    for check_id, holds, passed, failed in (
        (SnpCheck.SIG_ALGO, algo == 1, "ECDSA P-384 with SHA-384", f"{algo} is not 1, ECDSA P-384 with SHA-384"),
        (SnpCheck.SIG_PADDING, not any(padding), "the padding is zero", "the signature's padding is not zero"),
        (SnpCheck.SIGNING_KEY, signer is not None, f"signed by a {signer}", unsigned),
        (SnpCheck.DEBUG, not policy & PolicyBit.DEBUG, "debugging is off", "the host may debug this guest"),
        (SnpCheck.MIGRATE_MA, unmovable, "no migration agent", "a migration agent may move this guest"),
        (SnpCheck.POLICY_MBO, bool(policy & PolicyBit.MUST_BE_ONE), "bit 17 is one", "bit 17 is not one"),
        (
            SnpCheck.POLICY_MBZ,
            not policy & PolicyBit.MUST_BE_ZERO,
            "bits 26 to 63 are zero",
            "a bit from 26 on is set",
        ),
    ):
        ledger.expect(check_id, holds, passed, failed)


def _check_product(ledger: Ledger, report: SnpReport, vek: VekExtensions | None, product: Product | None) -> None:
    if report.cpuid is None:
        ledger.expect(SnpCheck.UNKNOWN_CPUID, True, "a version 2 report has no CPUID; the certificate decides", "")
    else:
        family, model, stepping = report.cpuid
        name = f"family {family:#x}, model {model:#x}, stepping {stepping:#x}"
        ledger.expect(SnpCheck.UNKNOWN_CPUID, product is not None, name, f"{name} is no product known here")
    if product is not None and vek is not None:
        ledger.expect(
            SnpCheck.PRODUCT_MISMATCH,
            product is vek.product,
            f"report and certificate are of {product}",
            f"the report is of {product}, the certificate of {vek.product}",
        )


def _check_signer(ledger: Ledger, report: SnpReport, vek: VekExtensions, product: Product | None) -> None:
    if report.signing_key in abi.SIGNING_KEYS:
        named = abi.SIGNING_KEYS[report.signing_key]
        ledger.expect(
            SnpCheck.SIGNING_KEY_MISMATCH,
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
        ledger.expect(SnpCheck.TCB_MISMATCH, not wrong, f"both say {shown}", "; ".join(wrong))
    if vek.signer is Signer.VLEK:
        for check_id in (SnpCheck.CHIP_ID_MASKED, SnpCheck.HWID_MISSING, SnpCheck.HWID_MISMATCH):
            ledger.expect(check_id, True, f"a VLEK speaks for a cloud ({vek.csp_id}), not for a chip", "")
        return
    masked = report.chip_key_masked or not any(report.chip_id)
    ledger.expect(SnpCheck.CHIP_ID_MASKED, not masked, "the chip is named", "the host hides the chip's id or key")
    hwid = vek.hwid
    if ledger.expect(
        SnpCheck.HWID_MISSING, hwid is not None, "the certificate names a chip", "the VCEK names no chip"
    ):
        hwid = hwid or b""
        size = 8 if vek.product is Product.TURIN else 64
        if not masked:
            ledger.expect(
                SnpCheck.HWID_MISMATCH,
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
