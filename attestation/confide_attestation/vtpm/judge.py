"""Judge an Azure machine: the hardware's report, and from it to what its vTPM quotes.

The argument: (1) the HCL report's form; (2) the hardware's own report in it, or the quote that it was turned into,
judged by its vendor's room; (3) its report data to the runtime data, these to the vTPM's AK; (4) a quote by it:
PCRs, and what the caller had it sign; (5) the machine against the policy.
The guest can put what it likes into the user data of an HCL report: nothing is bound by them.
"""

from enum import StrEnum
from typing import Final

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import Endorsements, VtpmEvidence
from confide_attestation.part import Claims, Part
from confide_attestation.policy import AzureSnpPlatform, AzureTdxPlatform, SimulatedRoots
from confide_attestation.result import Outcome
from confide_attestation.snp.abi import parse_report
from confide_attestation.snp.ids import SNP_CHAIN_CHECKS, SNP_CHECKS, SNP_REPORT_CHECKS
from confide_attestation.snp.judge import judge_snp
from confide_attestation.tdx.abi import parse_quote
from confide_attestation.tdx.ids import TDX_AUTHENTICITY_CHECKS, TDX_CHECKS
from confide_attestation.tdx.judge import judge_tdx
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
    check_machine,
    verify_ak,
    verify_hcl,
    verify_runtime,
    verify_tdreport,
    verify_tpm_quote,
)

_AUTHENTIC: Final[dict[Tee, tuple[StrEnum, ...]]] = {
    Tee.SNP: SNP_CHAIN_CHECKS + SNP_REPORT_CHECKS,
    Tee.TDX: TDX_AUTHENTICITY_CHECKS,
}


def judge_azure(
    hcl_report: bytes,
    vtpm: VtpmEvidence | None,
    endorsements: Endorsements,
    policy: AzureSnpPlatform | AzureTdxPlatform | None,
    simulated: SimulatedRoots | None,
    *,
    now_unix_s: int,
    nonce: bytes | None,
) -> Part:
    """Judge a machine's evidence, and by `policy` if there is one; never raises, whatever the bytes.

    Without a policy the hardware is whose endorsements were given, and freshness counts only with a `nonce`.
    """
    ledger = Ledger()
    if policy is None:
        wanted = Tee.SNP if endorsements.snp is not None else Tee.TDX
    else:
        wanted = Tee.SNP if isinstance(policy, AzureSnpPlatform) else Tee.TDX
    report = verify_hcl(ledger, hcl_report)
    td_quote = b"" if vtpm is None else vtpm.td_quote
    inner, runtime, machine = None, None, None
    if report is not None:
        if report.tee is wanted:
            inner = _judge_hardware(report, td_quote, endorsements, policy, simulated, now_unix_s)
        runtime = _judge_binding(ledger, report, wanted, td_quote)
    ak = None if runtime is None else verify_ak(ledger, runtime)
    if vtpm is None:
        ledger.fail(VtpmCheck.TPM_MAGIC, "there is no quote of the machine's vTPM")
    else:
        machine = verify_tpm_quote(ledger, vtpm, ak, nonce)
    binding = SNP_BINDING_CHECKS if wanted is Tee.SNP else TDX_BINDING_CHECKS
    chain = (*HCL_CHECKS, *binding, *RUNTIME_CHECKS, *AK_CHECKS, *TPM_CHECKS)
    needed: tuple[VtpmCheck, ...] = chain if nonce is None and policy is None else (*chain, VtpmCheck.TPM_NONCE)
    bound, claims = None, {} if inner is None else dict(inner.claims)
    # A host that can read the guest's memory has the AK, so what it signed counts only on hardware without a fault.
    if ledger.passed(chain) and inner is not None and _is_sound(inner, wanted) and runtime and machine:
        bound = machine.quote.extra_data
        claims |= {"vtpm": _claims(runtime, machine), "pcrs": _pcr_claims(machine)}
        if policy is not None:
            check_machine(ledger, runtime, machine.pcrs, policy.vtpm)
    if policy is not None:
        needed += MACHINE_CHECKS
    else:
        for check_id in MACHINE_CHECKS:
            ledger.skip(check_id, "no policy was given: NOT appraised")
    hardware = Ledger().close(SNP_CHECKS if wanted is Tee.SNP else TDX_CHECKS) if inner is None else inner.checks
    rest = (*chain[len(HCL_CHECKS) :], VtpmCheck.TPM_NONCE, *MACHINE_CHECKS)
    return Part(
        checks=ledger.close(HCL_CHECKS) + hardware + ledger.close(rest),
        holds=inner is not None and inner.holds and ledger.holds(needed),
        claims=claims,
        bound=bound,
        not_after_unix_s=None if inner is None else inner.not_after_unix_s,
        readable=not ledger.failed(VTPM_FILES) and (inner is None or inner.readable),
    )


def _judge_hardware(
    report: HclReport,
    td_quote: bytes,
    endorsements: Endorsements,
    policy: AzureSnpPlatform | AzureTdxPlatform | None,
    simulated: SimulatedRoots | None,
    now_unix_s: int,
) -> Part:
    if report.tee is Tee.SNP:
        snp = policy.snp if isinstance(policy, AzureSnpPlatform) else None
        return judge_snp(report.hardware, endorsements.snp, snp, simulated, now_unix_s=now_unix_s)
    tdx = policy.tdx if isinstance(policy, AzureTdxPlatform) else None
    return judge_tdx(td_quote, endorsements.tdx, tdx, simulated, now_unix_s=now_unix_s)


def _is_sound(hardware: Part, tee: Tee) -> bool:
    """Say whether the hardware's signatures hold, and nothing but a policy speaks against it."""
    faults = {check.id for check in hardware.checks if check.outcome is Outcome.FAIL}
    return hardware.bound is not None and not faults & {check.value for check in _AUTHENTIC[tee]}


def _judge_binding(ledger: Ledger, report: HclReport, wanted: Tee, td_quote: bytes) -> Runtime | None:
    """Judge from the hardware's report to the runtime data; what cannot be read was judged with the hardware."""
    if not ledger.expect(
        VtpmCheck.HCL_FOREIGN,
        report.tee is wanted,
        f"the HCL report is of {wanted.name}, and so is what was given for it",
        f"the HCL report is of {report.tee.name}, what was given for it of {wanted.name}",
    ):
        return None
    try:
        if wanted is Tee.TDX:
            quote = parse_quote(td_quote)
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
