"""Guessing ahead: what is proposed, how far, and when it is left."""

from itertools import pairwise
from random import Random

from confide_enclave.engine.speculate import MAX_GUESSES, Guesser, PromptLookup, Proposer
from confide_protocol.shape import BUCKETED
from hypothesis import given
from hypothesis import strategies as st


class Always(Proposer):
    """Guesses the same token, as often as it may."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.asked: list[int] = []

    def propose(self, new, most):
        self.read += new
        self.asked.append(most)
        return [7] * most

    def close(self) -> None:
        self.read.clear()


def test_what_followed_last_time_is_proposed() -> None:
    """The continuation of the latest run of three like the last three, as far as asked for."""
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 4, 5, 9, 1, 2, 3, 6, 7, 8, 2], 4) == []
    assert lookup.propose([1, 2, 3], 4) == [6, 7, 8, 2]
    assert lookup.propose([6], 2) == [7, 8]
    assert lookup.propose([6], 2) == []


def test_what_repeats_keeps_repeating() -> None:
    """A period shorter than the guess goes on beyond the last id."""
    lookup = PromptLookup()
    assert lookup.propose([5, 1, 2, 1, 2, 1], 5) == [2, 1, 2, 1, 2]
    assert lookup.propose([2, 3, 3, 3, 3], 3) == [3, 3, 3]


def test_too_little_to_go_by() -> None:
    """Fewer ids than a run give no guess, and nor does a limit of none or less."""
    lookup = PromptLookup()
    assert lookup.propose([], 3) == lookup.propose([1, 1], 3) == lookup.propose([1], 3) == []
    assert lookup.propose([1], 0) == lookup.propose([1], -1) == []
    assert lookup.propose([1], 1) == [1]


@given(st.lists(st.integers(0, 3), max_size=120), st.integers(3, 30), st.randoms(use_true_random=False))
def test_lookup_against_its_definition(ids: list[int], lookback: int, rng: Random) -> None:
    """However the ids come in: the latest run within the lookback, by a scan of all of them; memory is bounded."""
    lookup, read = PromptLookup(lookback), 0
    while read < len(ids):
        count = rng.randint(1, 5)
        found = lookup.propose(ids[read : read + count], 1)
        read = min(read + count, len(ids))
        ends = [
            end for end in range(3, read) if ids[end - 3 : end] == ids[read - 3 : read] and end >= read - lookback
        ]
        assert found == [ids[end] for end in ends[-1:]]
        assert len(lookup._after) <= lookback
    lookup.close()
    assert lookup.propose([1], 3) == []


def test_each_id_is_read_once() -> None:
    """The proposer gets the prompt, then what is new, in whatever pieces."""
    proposer = Always()
    guesser = Guesser(proposer, 3)
    generated: list[int] = []
    for piece in ([], [4], [5, 6], [], [7, 7, 7]):
        generated += piece
        guesser.guess([1, 2, 3], generated, 3)
        assert proposer.read == [1, 2, 3, *generated]
    guesser.close()
    assert proposer.read == []


def test_wrong_guesses_become_fewer_and_rarer() -> None:
    """Each miss halves the reach and doubles the pause; one guess that comes true restores both."""
    proposer = Always()
    guesser, generated = Guesser(proposer, 7), []
    for _ in range(200):
        guesser.guess([1], generated, 7)
        generated.append(0)
    reach = [most for most in proposer.asked if most]
    assert reach[:4] == [7, 3, 1, 1]
    at = [step for step, most in enumerate(proposer.asked) if most]
    assert [after - before for before, after in pairwise(at)] == [3, 5, 9, 17, 33, 65, 65]
    while not guesser.guess([1], generated, 7):
        generated.append(0)
    generated += [7, 0]
    assert guesser.guess([1], generated, 7) == [7] * 7


def test_the_room_is_kept() -> None:
    """Never more guesses than there is room for."""
    guesser = Guesser(Always(), 7)
    assert guesser.guess([1], [], 2) == [7, 7]
    assert guesser.guess([1], [7, 7, 7], 0) == []
    assert guesser.guess([1], [7, 7, 7], -1) == []


def test_no_step_makes_two_flushes() -> None:
    """What one step can bring fits into what the bucketed shape flushes at a time."""
    assert BUCKETED.flush_tokens >= MAX_GUESSES + 1
