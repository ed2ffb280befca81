"""One request's state: what is pending, when it ends, and that it shows nothing."""

import math

import pytest
from confide_enclave.engine import Sampling
from confide_enclave.engine.sampler import Drawn
from confide_enclave.engine.sequence import Sequence, token_limit
from confide_enclave.engine.tokens import TextStream
from confide_protocol.errors import ContextTooLong, LocalStateError


class Letters:
    """A vocabulary of ASCII; 0 ends."""

    end_ids = frozenset({0})

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token else b""


def make(max_tokens: int = 8, stop: tuple[str, ...] = ()) -> Sequence:
    return Sequence([65, 66, 67], Sampling(0, 1, max_tokens, 0, stop), max_tokens, TextStream(stop), print)


def answer(sequence: Sequence, text: bytes) -> list[tuple[str, int, str | None]]:
    deltas = [sequence.append(Drawn(token), Letters()) for token in text]
    assert {delta.prompt_tokens for delta in deltas} == {3}
    return [(delta.text, delta.completion_tokens, delta.finish_reason) for delta in deltas]


def test_pending() -> None:
    """First the prompt in pieces, then each new token; from the start again when the cache was lost."""
    sequence = make()
    assert (sequence.pending(2), sequence.remaining) == ([65, 66], 3)
    sequence.computed = 2
    assert (sequence.pending(2), sequence.remaining) == ([67], 1)
    sequence.computed = 3
    sequence.append(Drawn(90), Letters())
    assert (sequence.pending(1), sequence.remaining) == ([90], 1)
    sequence.computed = 0
    assert (sequence.pending(9), sequence.remaining) == ([65, 66, 67, 90], 4)
    sequence.computed = 2
    assert sequence.pending(2) == [67, 90]


def test_finish_reasons() -> None:
    """An end token and a stop string are `stop`; the limit is `length`; held text comes out with the last delta."""
    assert answer(make(), b"hi\0") == [("h", 1, None), ("i", 2, None), ("", 3, "stop")]
    assert answer(make(2), b"hi") == [("h", 1, None), ("i", 2, "length")]
    assert answer(make(stop=("ix",)), b"hix") == [("h", 1, None), ("", 2, None), ("", 3, "stop")]
    assert answer(make(2, stop=("ix",)), b"hi") == [("h", 1, None), ("i", 2, "length")]
    assert answer(make(stop=("ix",)), b"hi\0")[-1] == ("i", 3, "stop")
    assert answer(make(2, stop=("hi",)), b"hi")[-1] == ("", 2, "stop")


def test_the_answer_takes_what_the_context_leaves() -> None:
    """max_tokens is an upper bound; a prompt that leaves nothing is refused."""
    assert token_limit([0] * 10, Sampling(0, 1, 5, 0), 20) == 5
    assert token_limit([0] * 10, Sampling(0, 1, 50, 0), 20) == 10
    with pytest.raises(ContextTooLong, match="20 tokens"):
        token_limit([0] * 20, Sampling(0, 1, 1, 0), 20)


@pytest.mark.parametrize(
    "values", [(-1, 1, 1), (math.nan, 1, 1), (math.inf, 1, 1), (1, 0, 1), (1, 1.1, 1), (1, math.nan, 1), (1, 1, 0)]
)
def test_sampling_out_of_range(values: tuple[float, float, int]) -> None:
    """Parameters that would spoil a whole step never reach one."""
    with pytest.raises(LocalStateError):
        token_limit([0], Sampling(*values, seed=0), 20)


def test_repr_shows_no_tokens() -> None:
    """Neither prompt, answer nor stop strings are in the repr."""
    sequence = make(stop=("CANARY",))
    answer(sequence, b"Z")
    assert not any(mark in repr(sequence) for mark in ("65", "90", "CANARY"))
