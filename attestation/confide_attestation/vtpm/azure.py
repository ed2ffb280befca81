"""Judge an Azure machine's evidence by itself: the hardware's report, and from it to the vTPM's PCRs."""

from dataclasses import dataclass
from enum import StrEnum

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import SnpEndorsements, VtpmEvidence
from confide_attestation.result import AttestationResult, Verdict
from confide_attestation.snp.abi import parse_report
from confide_attestation.snp.ids import SNP_CHAIN_CHECKS, SNP_POLICY_CHECKS, SNP_REPORT_CHECKS
from confide_attestation.snp.judge import verify_snp
from confide_attestation.tdx.abi import parse_quote
from confide_attestation.tdx.ids import TDX_AUTHENTICITY_CHECKS, TDX_POLICY_CHECKS
from confide_attestation.tdx.judge import verify_tdx
from confide_attestation.vtpm.hcl import HclReport, Runtime, Tee
from confide_attestation.vtpm.ids import (
    AK_CHECKS,
    HCL_CHECKS,
    MACHINE_CHECKS,
    RUNTIME_CHECKS,
    SNP_BINDING_CHECKS,
    TDX_BINDING_CHECKS,
    TPM_CHECKS,
    VTPM_FILES,
    VtpmCheck,
)
from confide_attestation.vtpm.verify import (
    QuotedMachine,
    verify_ak,
    verify_hcl,
    verify_runtime,
    verify_tdreport,
    verify_tpm_quote,
)

Claims = dict[str, str | int | bool]
_SNP_SCOPE: tuple[StrEnum, ...] = SNP_CHAIN_CHECKS + SNP_REPORT_CHECKS + SNP_POLICY_CHECKS
_TDX_SCOPE: tuple[StrEnum, ...] = TDX_AUTHENTICITY_CHECKS + TDX_POLICY_CHECKS


@dataclass(frozen=True)
class TdxPlatform:
    """The quote that a TD's TDREPORT was turned into, and Intel's collateral for it (JSON)."""

    quote: bytes
    collateral_json: bytes
    root_der: bytes | None = None


def verify_azure(
    hcl_report: bytes,
    vtpm: VtpmEvidence,
    platform: SnpEndorsements | TdxPlatform,
    *,
    now_unix_s: int,
    nonce: bytes | None = None,
) -> AttestationResult:
    """Judge an Azure machine's authenticity, by AMD's certificates or by a TDX quote. Never yields a keyset.

    The verdict is AUTHENTIC at best. UNREADABLE means that an input is not a file of its kind. Without `nonce`
    freshness is not judged, and the result says so.
    Does not check: the values of PCRs, secure boot, console: those are a policy's, and shown.
    """
    ledger = Ledger()
    wanted = Tee.SNP if isinstance(platform, SnpEndorsements) else Tee.TDX
    report = verify_hcl(ledger, hcl_report)
    inner: AttestationResult | None = None
    if report is not None and report.tee is wanted:
        inner = _judge_hardware(report, platform, now_unix_s)
    runtime = None if report is None else _judge_binding(ledger, report, platform)
    ak = None if runtime is None else verify_ak(ledger, runtime)
    machine = verify_tpm_quote(ledger, vtpm, ak, nonce)
    for check_id in MACHINE_CHECKS:
        ledger.skip(check_id, "no policy was given: NOT appraised")
    binding = SNP_BINDING_CHECKS if wanted is Tee.SNP else TDX_BINDING_CHECKS
    needed = (*HCL_CHECKS, *binding, *RUNTIME_CHECKS, *AK_CHECKS, *TPM_CHECKS)
    if nonce is not None:
        needed += (VtpmCheck.TPM_NONCE,)
    authentic = ledger.holds(needed) and inner is not None and inner.verdict is Verdict.AUTHENTIC
    verdict = Verdict.AUTHENTIC if authentic else Verdict.REFUSED
    if ledger.failed(VTPM_FILES) or (inner is not None and inner.verdict is Verdict.UNREADABLE):
        verdict = Verdict.UNREADABLE
    claims = {} if inner is None else dict(inner.claims)
    if authentic and runtime is not None and machine is not None:
        claims |= {"vtpm": _claims(runtime, machine), "pcrs": _pcr_claims(machine)}
    scope = _SNP_SCOPE if wanted is Tee.SNP else _TDX_SCOPE
    hardware = Ledger().close(scope) if inner is None else inner.checks
    rest = (*binding, *RUNTIME_CHECKS, *AK_CHECKS, *TPM_CHECKS, VtpmCheck.TPM_NONCE, *MACHINE_CHECKS)
    return AttestationResult(
        verdict=verdict,
        checks=(*ledger.close(HCL_CHECKS), *hardware, *ledger.close(rest)),
        claims=claims,
        simulated=inner is not None and inner.simulated,
        policy_id=None,
        policy_digest=None,
        judged_at_unix_s=now_unix_s,
    )


def _judge_hardware(
    report: HclReport, platform: SnpEndorsements | TdxPlatform, now_unix_s: int
) -> AttestationResult:
    if isinstance(platform, SnpEndorsements):
        return verify_snp(report.hardware, platform, now_unix_s=now_unix_s)
    return verify_tdx(platform.quote, platform.collateral_json, now_unix_s=now_unix_s, root_der=platform.root_der)


def _judge_binding(ledger: Ledger, report: HclReport, platform: SnpEndorsements | TdxPlatform) -> Runtime | None:
    """Judge from the hardware's report to the runtime data; what cannot be read was judged with the hardware."""
    wanted = Tee.SNP if isinstance(platform, SnpEndorsements) else Tee.TDX
    if not ledger.expect(
        VtpmCheck.HCL_FOREIGN,
        report.tee is wanted,
        f"the HCL report is of {wanted.name}, and so is what was given for it",
        f"the HCL report is of {report.tee.name}, what was given for it of {wanted.name}",
    ):
        return None
    try:
        if isinstance(platform, TdxPlatform):
            quote = parse_quote(platform.quote)
            verify_tdreport(ledger, report.hardware, quote)
            return verify_runtime(ledger, report, quote.field("report_data"))
        snp = parse_report(report.hardware)
    except EvidenceMalformed:
        return None
    ledger.expect(
        VtpmCheck.HCL_VMPL,
        snp.vmpl == 0,
        "asked for at VMPL 0, where only the paravisor runs",
        f"asked for at VMPL {snp.vmpl}: the guest itself may have chosen what the report holds",
    )
    return verify_runtime(ledger, report, snp.report_data)


def _claims(runtime: Runtime, machine: QuotedMachine) -> Claims:
    quote = machine.quote
    return {
        "secure_boot": runtime.secure_boot,
        "console_enabled": runtime.console_enabled,
        "tpm_enabled": runtime.tpm_enabled,
        "vm_id": runtime.vm_id,
        "user_data": runtime.user_data.hex(),
        "extra_data": quote.extra_data.hex(),
        "clock_ms": quote.clock_ms,
        "clock_safe": quote.clock_safe,
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
        "tpm_firmware_version": f"{quote.firmware_version:#x}",
    }


def _pcr_claims(machine: QuotedMachine) -> Claims:
    return {f"pcr{pcr}": value.hex() for pcr, value in machine.pcrs.items()}
