"""Draws are a function of (seed, position) and the row's own logits."""

import torch
from confide_enclave.engine import Sampling
from confide_enclave.engine.sampler import draw, uniform
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream


def make(seed: int, generated: int, temperature: float = 1.0) -> Sequence:
    sequence = Sequence([1], Sampling(temperature, 0.9, 9, seed), 9, TextStream(()), print)
    sequence.generated = [0] * generated
    return sequence


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
