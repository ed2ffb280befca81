"""Draws are a function of (seed, position) and the row's own logits."""

import math
from collections import Counter

import pytest
import torch
from confide_enclave.engine import Sampling
from confide_enclave.engine.sampler import draw, uniform
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream
from confide_protocol.errors import EngineError


def make(seed: int, generated: int, temperature: float = 1.0, **more) -> Sequence:
    sequence = Sequence([1], Sampling(temperature, 0.9, 9, seed, **more), 9, TextStream(()), print)
    sequence.generated = [0] * generated
    return sequence


def counts(logits: torch.Tensor, draws: int = 4000, generated: tuple[int, ...] = (), **more) -> Counter[int]:
    """Draw with seeds 0, 1, 2, ... at one place of an answer."""
    rows = []
    for seed in range(draws):
        row = Sequence([1, 3], Sampling(1.0, 1.0, 9, seed, **more), 9, TextStream(()), print)
        row.generated = list(generated)
        rows.append(row)
    return Counter(each.token for each in draw(logits.expand(draws, -1), rows) if each)


def chi_square(found: Counter[int], logits: list[float]) -> float:
    """The statistic against softmax(logits); -inf must never come."""
    shares = torch.softmax(torch.tensor(logits, dtype=torch.float64), 0).tolist()
    total = found.total()
    assert not any(found[token] for token, share in enumerate(shares) if share == 0)
    return sum((found[t] - total * share) ** 2 / (total * share) for t, share in enumerate(shares) if share)


LOGITS = [0.3, -0.7, 1.1, 0.9, -0.2, 0.0]
LIMIT = 20.5  # the 99.9th percentile of chi-square with 5 degrees of freedom


def test_uniform_is_pinned() -> None:
    """The generator never changes under a receipt: SHA-256 of two little-endian 64-bit numbers, top 53 bits."""
    assert uniform(0, 0) == 0.8344336729487916
    assert uniform(-1, 5) == uniform(2**64 - 1, 5)
    values = [uniform(seed, position) for seed in range(40) for position in range(50)]
    assert len(set(values)) == len(values)
    assert abs(sum(values) / len(values) - 0.5) < 0.02
    assert 0 <= min(values) <= max(values) < 1


def test_neighbours_do_not_change_a_draw() -> None:
    """A sequence draws the same alone and in any company."""
    torch.manual_seed(0)
    logits = torch.randn(6, 500)
    sequences = [make(seed, seed * 3) for seed in range(6)]
    together = draw(logits, sequences)
    assert together == [draw(logits[i : i + 1], [sequence])[0] for i, sequence in enumerate(sequences)]
    assert draw(logits.flip(0), sequences[::-1]) == together[::-1]


def test_rows_that_are_not_finite_give_none() -> None:
    """NaN or infinity in one row is that row's misfortune alone."""
    logits = torch.randn(3, 10)
    logits[0, 4], logits[2, 1] = float("nan"), float("inf")
    assert [token is None for token in draw(logits, [make(1, 0)] * 3)] == [True, False, True]


def test_no_rows() -> None:
    """A step in which nobody is due a token draws nothing."""
    assert draw(torch.empty(0, 10), []) == []


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, LOGITS),
        ({"frequency_penalty": 0.5}, [0.3, -0.7, 1.1 - 1.0, 0.9, -0.2 - 0.5, 0.0]),
        ({"presence_penalty": 0.5}, [0.3, -0.7, 1.1 - 0.5, 0.9, -0.2 - 0.5, 0.0]),
        ({"frequency_penalty": -1.0, "presence_penalty": 0.5}, [0.3, -0.7, 1.1 + 1.5, 0.9, -0.2 + 0.5, 0.0]),
        ({"repetition_penalty": 2.0}, [0.3, -1.4, 0.55, 0.45, -0.4, 0.0]),
        ({"logit_bias": ((0, 1.0), (5, -100.0))}, [1.3, -0.7, 1.1, 0.9, -0.2, -100.0]),
        ({"top_k": 3}, [0.3, -math.inf, 1.1, 0.9, -math.inf, -math.inf]),
        ({"min_p": 0.4}, [0.3, -math.inf, 1.1, 0.9, -math.inf, -math.inf]),
    ],
)
def test_each_parameter_gives_the_distribution_that_it_says(asked: dict, expected: list[float]) -> None:
    """Against the penalties' formulas, with fixed seeds; token 2 was said twice, 4 once, 1 and 3 are the prompt."""
    found = counts(torch.tensor(LOGITS), generated=(2, 4, 2), **asked)
    limits = [math.isinf(x) or x == -100 for x in expected]
    expected = [-math.inf if gone else x for gone, x in zip(limits, expected, strict=True)]
    assert chi_square(found, expected) < LIMIT


def test_the_test_of_distributions_can_fail() -> None:
    """The wrong penalty is seen."""
    found = counts(torch.tensor(LOGITS), generated=(2, 4, 2), frequency_penalty=0.5)
    assert chi_square(found, LOGITS) > LIMIT


def test_every_parameter_is_the_rows_own() -> None:
    """Whatever the neighbours ask for, a row's token and log-probabilities are those that it has alone."""
    torch.manual_seed(1)
    asked = [
        {},
        {"top_k": 7},
        {"min_p": 0.1, "logprobs": 3},
        {"frequency_penalty": 1.5, "presence_penalty": -0.5},
        {"repetition_penalty": 1.7, "logprobs": 0},
        {"logit_bias": ((3, 4.0), (9, -100.0))},
    ]
    logits, rows = torch.randn(6, 3000), [make(n, 2 * n, 0.9, **each) for n, each in enumerate(asked)]
    together = draw(logits, rows)
    assert together == [draw(logits[i : i + 1], rows[i : i + 1])[0] for i in range(6)]
    poisoned = logits.clone()
    poisoned[0, 5], poisoned[4] = float("nan"), float("inf")
    beside = draw(poisoned, rows)
    assert (beside[0], beside[4]) == (None, None)
    assert [beside[i] for i in (1, 2, 3, 5)] == [together[i] for i in (1, 2, 3, 5)]


def test_logprobs_are_the_models_own() -> None:
    """Neither temperature nor bias shows in them; without being asked for there are none."""
    logits = torch.tensor([LOGITS])
    (drawn,) = draw(logits, [make(0, 0, 0.0, logprobs=2, logit_bias=((4, 100.0),))])
    shares = torch.log_softmax(torch.tensor(LOGITS).double(), 0)
    assert drawn is not None
    assert (drawn.token, drawn.logprob) == (4, pytest.approx(float(shares[4]), abs=1e-11))
    assert [token for token, _ in drawn.top] == [2, 3]
    assert [value for _, value in drawn.top] == pytest.approx(shares[[2, 3]].tolist(), abs=1e-11)
    assert draw(logits, [make(0, 0)])[0].logprob is None


class Allowing:
    """A grammar that allows some ids, or breaks."""

    def __init__(self, mask: bytes | None) -> None:
        self._mask = mask

    def mask(self) -> bytes:
        if self._mask is None:
            raise EngineError
        return self._mask


def test_a_grammar_decides_what_may_come_and_its_fault_is_its_rows_own() -> None:
    """A row whose grammar breaks or allows nothing gives None; its neighbours do not notice."""
    logits, rows = torch.randn(4, 12), [make(seed, 0) for seed in range(4)]
    alone = draw(logits, rows)[3]
    for row, mask in zip(rows, (b"\x00\x04", None, b"\0\0"), strict=False):
        row.grammar = Allowing(mask)
    first, *broken, last = draw(logits, rows)
    assert first is not None
    assert (first.token, broken, last) == (10, [None, None], alone)


def test_a_penalty_beyond_all_numbers_is_its_rows_own() -> None:
    """Logits that a factor makes infinite give none, and every neighbour what it would have had."""
    logits = torch.randn(3, 50)
    rows = [make(4, 0), make(5, 1, repetition_penalty=1e-300), make(6, 0)]
    first, none, last = draw(logits, rows)
    assert none is None
    assert [first, last] == draw(logits[[0, 2]], [rows[0], rows[2]])
