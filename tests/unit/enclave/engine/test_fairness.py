"""Fair shares by account: who may enter, and how prompt tokens are split."""

import pytest
from confide_enclave.engine.fairness import QUANTUM_TOKENS, Admission, DeficitRoundRobin
from confide_protocol.errors import CapacityExceeded
from hypothesis import given
from hypothesis import strategies as st


def test_admission() -> None:
    """One account fills its own share and no other's; whoever leaves makes room."""
    admission = Admission(per_account=2, in_all=3)
    admission.enter("a")
    admission.enter("a")
    with pytest.raises(CapacityExceeded):
        admission.enter("a")
    admission.enter("b")
    with pytest.raises(CapacityExceeded):
        admission.enter("c")
    admission.leave("a")
    admission.enter("c")
    assert len(admission) == 3
    for account in "abc":
        admission.leave(account)
    assert len(admission) == 0
    assert not admission._counts


def test_equal_shares() -> None:
    """Two that want a lot get half each over time, whatever a step holds."""
    shares, given_ = DeficitRoundRobin(), {"a": 0, "b": 0}
    for _ in range(64):
        for account, tokens in shares.share({"a": 10_000, "b": 10_000}, 48).items():
            given_[account] += tokens
    assert given_ == {"a": 1536, "b": 1536}


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.dictionaries(st.sampled_from("cde"), st.integers(0, 500))), max_size=40
    )
)
def test_two_that_always_want_get_nearly_the_same(steps: list[tuple[int, dict[str, int]]]) -> None:
    """Between two accounts with a backlog the difference never passes one quantum, and no budget is wasted."""
    shares, totals = DeficitRoundRobin(), [(0, 0)]
    for budget, others in steps:
        wanted = {"a": 1 << 30, "b": 1 << 30} | others
        given_ = shares.share(wanted, budget)
        assert sum(given_.values()) == budget
        assert all(0 < tokens <= wanted[account] for account, tokens in given_.items())
        totals.append((totals[-1][0] + given_.get("a", 0), totals[-1][1] + given_.get("b", 0)))
        leads = [a - b for a, b in totals]
        assert max(leads) - min(leads) <= QUANTUM_TOKENS


@given(st.dictionaries(st.text(max_size=2), st.integers(0, 300)), st.integers(0, 1000))
def test_nothing_is_wasted(wanted: dict[str, int], budget: int) -> None:
    """Who wants little leaves the rest to the others."""
    assert sum(DeficitRoundRobin().share(wanted, budget).values()) == min(budget, sum(wanted.values()))
