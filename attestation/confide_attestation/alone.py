"""A verdict on evidence that is judged by itself: authentic without a policy, accepted or refused with one."""

from confide_attestation.checks.ids import POLICY_CHECKS
from confide_attestation.checks.ledger import Ledger
from confide_attestation.checks.policy import check_policy
from confide_attestation.part import Part
from confide_attestation.policy import AppraisalPolicy
from confide_attestation.result import AttestationResult, Verdict


def judge_alone(
    part: Part,
    policy: AppraisalPolicy | None,
    *,
    now_unix_s: int,
    simulated: bool,
    allow_simulated: bool = False,
) -> AttestationResult:
    """Make a result of a part that was judged by `policy`, or by none. Never yields a keyset.

    `simulated`: the part was judged under simulated roots. Does not check: report data, freshness, any keyset.
    """
    ledger = Ledger()
    if policy is not None:
        check_policy(ledger, policy, now_unix_s=now_unix_s, floor=policy.serial, allow_simulated=allow_simulated)
        good = part.holds and ledger.holds(POLICY_CHECKS)
        verdict = Verdict.ACCEPTED if good else Verdict.REFUSED
    else:
        verdict = Verdict.AUTHENTIC if part.holds else Verdict.REFUSED
    return AttestationResult(
        verdict=verdict if part.readable else Verdict.UNREADABLE,
        checks=(() if policy is None else ledger.close(POLICY_CHECKS)) + part.checks,
        claims=part.claims,
        simulated=simulated,
        policy_id=None if policy is None else policy.id,
        policy_digest=None if policy is None else policy.digest,
        judged_at_unix_s=now_unix_s,
    )
