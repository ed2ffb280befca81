"""Draws on a GPU are those of a CPU, whatever was asked for: a receipt's answer comes out again without one."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from confide_enclave.engine import Sampling
from confide_enclave.engine.lane import Lane
from confide_enclave.engine.sampler import choose, draw
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream
from confide_kernels import place

# The interpreter's arithmetic is numpy's, which warns of numbers that are not finite.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
VOCABULARY = 2500
FILTERS = ({}, {"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.02}, {"top_k": 40, "top_p": 0.9, "min_p": 0.001})
SHIFTS = (
    {},
    {"frequency_penalty": 1.5, "presence_penalty": -0.5},
    {"repetition_penalty": 1.7},
    {"logit_bias": ((3, 4.0), (9, -100.0), (VOCABULARY + 7, 1.0))},
)


class Masked:
    """A grammar that allows every third token, or none."""

    def __init__(self, *, allows: bool) -> None:
        bits = np.zeros(VOCABULARY, np.uint8)
        bits[::3] = allows
        self._mask = np.packbits(bits, bitorder="little").tobytes()

    def mask(self) -> bytes:
        return self._mask


def rows() -> Iterator[Sequence]:
    for number, (shift, filtered, temperature) in enumerate(product(SHIFTS, FILTERS, (0.0, 0.7, 1.3))):
        asked = {"temperature": temperature, "top_p": 1.0, "max_tokens": 9, "seed": number} | shift | filtered
        row = Sequence([1, 5, 5], Sampling(**asked), 9, TextStream(()), print)
        row.generated = [7, 7, 2][: number % 4]
        if number % 7 == 3:
            row.grammar = Masked(allows=number % 2 == 1)  # type: ignore[assignment]
        yield row


def test_ids_are_those_that_a_cpu_draws(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters, penalties, bias, grammars, ties, rows that are not finite: the same id, or none in both."""
    asked = list(rows())
    torch.manual_seed(3)
    logits = (torch.randn(len(asked), VOCABULARY) * 4).round(decimals=1)
    logits[2, 7], logits[10, 9], logits[20] = float("nan"), float("inf"), float("-inf")
    with monkeypatch.context() as patch:
        patch.setattr(place, "INTERPRETED", False)
        expected = draw(logits, asked)
    with torch.inference_mode():
        chosen = lane.fetch(choose(logits.to(lane.device), asked, lane.send))()
    assert chosen == [-1 if each is None else each.token for each in expected]
    assert chosen.count(-1) > 3
    assert len(set(chosen)) > 20
