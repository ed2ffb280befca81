"""Judge whether NVIDIA revoked a certificate, by the answers that were given and what a policy demands of them."""

from collections.abc import Iterable, Sequence

from cryptography import x509

from confide_attestation.checks.ledger import Ledger
from confide_attestation.nvidia.ids import NvidiaCheck
from confide_attestation.nvidia.ocsp import OcspAnswer, PathAnswers, judge_revocation
from confide_attestation.nvidia.policy import GpuPolicy, Hold, Revocation
from confide_attestation.policy_types import Waived

OCSP_SERVICE = "https://ocsp.ndis.nvidia.com/"


def judge_paths(
    ledger: Ledger,
    check_ids: Sequence[NvidiaCheck],
    paths: Sequence[Sequence[x509.Certificate]],
    answers: Sequence[OcspAnswer] | None,
    policy: GpuPolicy | None,
    *,
    now_unix_s: int,
    hold: Hold | None = None,
) -> tuple[PathAnswers, ...]:
    """Judge three checks (answered, in time, not revoked) over `paths`; `hold` allows certificates on hold.

    Without answers the checks are SKIP, unless a policy demands them; with answers they always count.
    """
    if answers is None and policy is None:
        for check_id in check_ids:
            ledger.skip(check_id, "no OCSP answers were given")
        return ()
    if answers is None and policy is not None and isinstance(policy.revocation, Waived):
        for check_id in check_ids:
            ledger.waive(check_id, policy.revocation.waived)
        return ()
    judged = tuple(judge_revocation(path, answers or (), now_unix_s) for path in paths)
    answered, in_time, revoked = check_ids
    missing, late = _named(each.unanswered for each in judged), _named(each.out_of_window for each in judged)
    gone, held = _named(each.revoked for each in judged), _named(each.held for each in judged)
    ledger.expect(
        answered,
        not missing,
        "an authentic answer for each certificate",
        f"no authentic answer for: {missing}; ask {OCSP_SERVICE}",
    )
    if late or not missing:
        ledger.expect(
            in_time,
            not late,
            "the answers count at this time",
            f"the answer does not count at this time for: {late}",
        )
    if held and not gone and hold is not None:
        ledger.waive(revoked, f"on hold: {held}: {hold.accepted_because}")
    elif gone or held or not missing:
        faults = (f"revoked or unknown: {gone}" if gone else "", f"on hold: {held}" if held else "")
        ledger.expect(revoked, not gone and not held, "no certificate is revoked", "; ".join(filter(None, faults)))
    return judged


def check_age(ledger: Ledger, judged: Sequence[PathAnswers], policy: GpuPolicy, now_unix_s: int) -> None:
    """Judge whether revocation is known as freshly as the policy demands."""
    if isinstance(policy.revocation, Waived):
        ledger.waive(NvidiaCheck.OCSP_AGE, policy.revocation.waived)
        return
    given = [each.oldest_unix_s for each in judged if each.oldest_unix_s is not None]
    if not given:
        ledger.fail(NvidiaCheck.OCSP_AGE, "there is no answer, and the policy demands them")
        return
    age_s, most_s = now_unix_s - min(given), policy.revocation.max_age_s
    ledger.expect(
        NvidiaCheck.OCSP_AGE,
        age_s <= most_s,
        f"the oldest answer was given {age_s} s ago, at most {most_s} s are accepted",
        f"an answer was given {age_s} s ago, more than the accepted {most_s} s; ask {OCSP_SERVICE} again",
    )


def answers_end(judged: Sequence[PathAnswers], policy: GpuPolicy | None) -> list[int]:
    """Return when answers cease to count, by their own word and by the policy's greatest age."""
    ends = [each.ends_unix_s for each in judged if each.ends_unix_s is not None]
    if policy is not None and isinstance(policy.revocation, Revocation):
        most_s = policy.revocation.max_age_s
        ends += [each.oldest_unix_s + most_s for each in judged if each.oldest_unix_s is not None]
    return ends


def rim_hold(policy: GpuPolicy | None) -> Hold | None:
    """Return the leave that a policy gives to manifests' certificates on hold."""
    if policy is None or not isinstance(policy.revocation, Revocation):
        return None
    return None if policy.revocation.rim_hold == "refused" else policy.revocation.rim_hold


def _named(faults: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, faults)))
