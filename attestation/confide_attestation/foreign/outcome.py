"""Make one result of the vendors' evidence in a provider's report and of what the report binds to it."""

from collections.abc import Mapping, Sequence

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.foreign.ids import ForeignCheck
from confide_attestation.nvidia.chain import NvidiaRoots
from confide_attestation.nvidia.evidence import NvidiaEndorsements, parse_evidence
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.part import Claims
from confide_attestation.result import AttestationResult, Verdict


class Findings(Ledger):
    """A ledger in which a check may stay unjudged without refusing, because nothing was given to judge it by."""

    def __init__(self) -> None:
        super().__init__()
        self._unjudged: set[ForeignCheck] = set()

    def leave(self, check_id: ForeignCheck, reason: str) -> None:
        self.skip(check_id, reason)
        self._unjudged.add(check_id)

    def all_hold(self, scope: Sequence[ForeignCheck]) -> bool:
        return all(check_id in self._unjudged or self.passed((check_id,)) for check_id in scope)


def judge_devices(
    payload: bytes, nvidia: NvidiaEndorsements, nonce: bytes, *, now_unix_s: int, roots: NvidiaRoots | None
) -> AttestationResult:
    """Judge NVIDIA's evidence JSON by the nonce that the CPU's evidence is bound to. Raises: EvidenceMalformed."""
    try:
        devices = parse_evidence(payload, None)
    except EvidenceMalformed as fault:
        raise EvidenceMalformed(str(fault), ForeignCheck.GPU_EVIDENCE) from None
    return verify_nvidia(devices, nvidia, now_unix_s=now_unix_s, nonce=nonce, roots=roots)


def conclude(
    findings: Findings,
    scope: Sequence[ForeignCheck],
    parts: Sequence[AttestationResult],
    provider: Claims,
    *,
    now_unix_s: int,
) -> AttestationResult:
    """Return AUTHENTIC if every part is, and every check of the report holds; a keyset is never made of it."""
    verdicts = {part.verdict for part in parts}
    holds = verdicts == {Verdict.AUTHENTIC} and findings.all_hold(scope)
    verdict = Verdict.AUTHENTIC if holds else Verdict.REFUSED
    claims: dict[str, Mapping[str, str | int | bool]] = {}
    for part in parts:
        claims |= part.claims
    if provider:
        claims["provider"] = provider
    return AttestationResult(
        verdict=Verdict.UNREADABLE if Verdict.UNREADABLE in verdicts else verdict,
        checks=(*(check for part in parts for check in part.checks), *findings.close(scope)),
        claims=claims,
        simulated=any(part.simulated for part in parts),
        policy_id=None,
        policy_digest=None,
        judged_at_unix_s=now_unix_s,
    )
