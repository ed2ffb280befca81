"""Judge an Azure machine's evidence by itself: the hardware's report, and from it to the vTPM's PCRs."""

from dataclasses import dataclass, replace

from confide_attestation.alone import judge_alone
from confide_attestation.evidence import Endorsements, SnpEndorsements, TdxEndorsements, VtpmEvidence
from confide_attestation.policy import AppraisalPolicy
from confide_attestation.result import AttestationResult
from confide_attestation.tdx.judge import simulated_root
from confide_attestation.vtpm.judge import judge_azure


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
    policy: AppraisalPolicy | None = None,
    allow_simulated: bool = False,
) -> AttestationResult:
    """Judge an Azure machine's authenticity by AMD's certificates or a TDX quote, and with a policy its values.

    Without a policy the verdict is AUTHENTIC at best; without `nonce` freshness is then not judged, and the result
    says so. UNREADABLE means that an input is not a file of its kind. Never yields a keyset.
    Does not check: without a policy, the values of PCRs, secure boot, console, which are shown.
    Raises: PolicyError if the policy's profile is none of Azure's.
    """
    demands = None if policy is None else policy.azure
    if isinstance(platform, SnpEndorsements):
        endorsements, roots = Endorsements(snp=platform), None
    else:
        vtpm = replace(vtpm, td_quote=platform.quote)
        endorsements = Endorsements(tdx=TdxEndorsements(platform.collateral_json))
        roots = simulated_root(platform.root_der)
    roots = roots if policy is None else policy.roots
    part = judge_azure(hcl_report, vtpm, endorsements, demands, roots, now_unix_s=now_unix_s, nonce=nonce)
    return judge_alone(
        part, policy, now_unix_s=now_unix_s, simulated=roots is not None, allow_simulated=allow_simulated
    )
