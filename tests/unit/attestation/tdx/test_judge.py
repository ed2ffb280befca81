"""One quote by itself: by a policy, by none, and as a part of a whole appraisal."""

import pytest
from confide_attestation.evidence import TdxEndorsements
from confide_attestation.policy import AppraisalPolicy
from confide_attestation.result import Outcome, Verdict
from confide_attestation.tdx.ids import TDX_CHECKS, TDX_POLICY_CHECKS
from confide_attestation.tdx.judge import judge_tdx, simulated_root, verify_tdx
from confide_protocol.errors import PolicyError

from tests.fakes.scene import NOW, Scene
from tests.fakes.tdx_scene import TdxScene, genuine


def built() -> tuple[bytes, bytes, AppraisalPolicy]:
    evidence, endorsements, policy = TdxScene().build()
    assert endorsements.tdx is not None
    return evidence.cpu.report, endorsements.tdx.collateral, policy


def test_accepted_by_a_policy_and_never_with_a_keyset() -> None:
    """The policy's own checks come first; the second switch counts."""
    quote, collateral, policy = built()
    result = verify_tdx(quote, collateral, now_unix_s=NOW, policy=policy, allow_simulated=True)
    assert (result.verdict, result.keyset, result.simulated) == (Verdict.ACCEPTED, None, True)
    assert [check.id for check in result.checks[:4]] == [
        "policy_expired",
        "policy_serial",
        "simulated",
        "quote_size",
    ]
    result = verify_tdx(quote, collateral, now_unix_s=NOW, policy=policy)
    assert [check.id for check in result.failed] == ["simulated"]
    assert result.verdict is Verdict.REFUSED


def test_without_a_policy_it_is_authentic_at_best() -> None:
    """The policy's half is listed, and says that it was not made."""
    quote, collateral, _ = built()
    result = verify_tdx(quote, collateral, now_unix_s=NOW, root_der=genuine().root)
    assert (result.verdict, result.simulated) == (Verdict.AUTHENTIC, True)
    waiting = {check.id: check for check in result.checks if check.outcome is Outcome.SKIP}
    assert set(waiting) == {str(check_id) for check_id in TDX_POLICY_CHECKS}
    assert {check.detail for check in waiting.values()} == {"no policy was given: NOT appraised"}


def test_a_policy_s_roots_count_and_no_other() -> None:
    """A root that is given beside a policy is not trusted."""
    quote, collateral, policy = built()
    other = TdxScene(pins={"root": "none"}).build()[2]
    for by in (policy, other):
        result = verify_tdx(
            quote, collateral, now_unix_s=NOW, policy=by, allow_simulated=True, root_der=genuine().root
        )
        assert (result.verdict is Verdict.ACCEPTED) == (by is policy)


def test_a_policy_of_another_platform_is_a_fault_of_the_policy() -> None:
    """A policy that says nothing of TDX judges no quote."""
    quote, collateral, _ = built()
    snp = Scene().build()[2]
    with pytest.raises(PolicyError, match="says nothing of TDX"):
        verify_tdx(quote, collateral, now_unix_s=NOW, policy=snp)


def test_a_part_is_bound_only_once_its_signatures_hold() -> None:
    """A debug TD is refused and bound; a forged quote is neither bound nor claimed."""
    quote, collateral, policy = built()
    given = TdxEndorsements(collateral), policy.tdx, policy.roots
    part = judge_tdx(quote, *given, now_unix_s=NOW)
    assert part.holds
    assert part.bound is not None
    assert part.not_after_unix_s == NOW - 3600 + 86_400
    debug = TdxScene(quote={"td_attributes": (1 | 1 << 28).to_bytes(8, "little")}).build()[0].cpu.report
    part = judge_tdx(debug, *given, now_unix_s=NOW)
    assert (part.holds, part.bound is None, part.not_after_unix_s) == (False, False, None)
    part = judge_tdx(quote[:700] + b"\7" + quote[701:], *given, now_unix_s=NOW)
    assert (part.holds, part.bound, dict(part.claims)) == (False, None, {})


@pytest.mark.parametrize("quote", [b"", b"\4\0\2\0\x81", bytes(5000)])
def test_every_check_is_listed_whatever_the_bytes(quote: bytes) -> None:
    """With documents and without."""
    _, collateral, policy = built()
    for endorsements in (TdxEndorsements(collateral), TdxEndorsements(b""), None):
        part = judge_tdx(quote, endorsements, policy.tdx, policy.roots, now_unix_s=NOW)
        assert [check.id for check in part.checks] == [str(check_id) for check_id in TDX_CHECKS]
        assert (part.holds, part.readable, part.bound) == (False, False, None)


def test_a_simulated_root_of_intel_s_speaks_for_no_other_vendor() -> None:
    """The others are "none"."""
    roots = simulated_root(genuine().root)
    assert roots is not None
    named = roots.model_dump()
    assert [name for name, value in named.items() if value != "none"] == ["intel_root_sha256"]
    assert simulated_root(None) is None
