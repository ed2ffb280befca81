"""Give the CPU's evidence to the rooms that its platform profile names.

The rooms of TDX, event logs and vTPMs are imported when a profile first names them: they take 50 ms and 3 MB, for
which whoever verifies SEV-SNP has no use.
"""

import hashlib

from confide_attestation.evidence import Endorsements, EvidenceBundle
from confide_attestation.part import Part
from confide_attestation.policy import (
    AppraisalPolicy,
    AzureSnpPlatform,
    AzureTdxPlatform,
    DstackPlatform,
    GcpPlatform,
    SnpPlatform,
)
from confide_attestation.snp.judge import judge_snp


def judge_platform(
    evidence: EvidenceBundle, endorsements: Endorsements, policy: AppraisalPolicy, *, now_unix_s: int
) -> tuple[Part, ...]:
    """Judge all that the profile measures by; the first part is bound to the statement.

    Evidence of another kind than the profile's is judged as if there were none: every check is listed, and refuses.
    Never raises, whatever the bytes.
    """
    platform, roots, cpu = policy.platform, policy.roots, evidence.cpu
    report = cpu.report if cpu.kind is platform.cpu_kind else b""
    if isinstance(platform, SnpPlatform):
        return (judge_snp(report, endorsements.snp, platform.snp, roots, now_unix_s=now_unix_s),)
    if isinstance(platform, AzureSnpPlatform | AzureTdxPlatform):
        from confide_attestation.vtpm.judge import judge_azure

        statement_digest = hashlib.sha256(evidence.statement).digest()
        return (
            judge_azure(
                report, cpu.vtpm, endorsements, platform, roots, now_unix_s=now_unix_s, nonce=statement_digest
            ),
        )
    from confide_attestation.eventlog.judge import judge_logs
    from confide_attestation.tdx.judge import judge_tdx

    quote = judge_tdx(report, endorsements.tdx, platform.tdx, roots, now_unix_s=now_unix_s)
    if isinstance(platform, GcpPlatform):
        return (quote, judge_logs(evidence.event_logs, quote, "ccel", None))
    if isinstance(platform, DstackPlatform):
        return (quote, judge_logs(evidence.event_logs, quote, "dstack", platform.dstack))
    return (quote,)
