"""Rounding rows to levels: the definition, and the version for processors."""

import pytest
import torch
from confide_kernels.quant import LEVELS, compiled, naive, quantise, to_levels
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import numbers
from tests.fakes.numbers import NOT_FINITE, same

VERSIONS = pytest.mark.parametrize("quantise", [naive.quantise, compiled.quantise, quantise])


def test_levels_of_any_shape() -> None:
    """Each row reaches the greatest level, and none is off by more than half of one."""
    x = torch.randn(5, 3, 77) * torch.logspace(-20, 20, 5)[:, None, None]
    levels, tops, per_unit = to_levels(x)
    assert levels.abs().amax(-1).eq(LEVELS).all()
    assert torch.equal(tops, x.abs().amax(-1, keepdim=True))
    assert torch.equal(per_unit, (LEVELS / tops.double()).float())
    assert ((levels * (tops / LEVELS) - x).abs() <= tops / LEVELS * 0.501).all()


@VERSIONS
def test_levels(quantise) -> None:
    """Rows of whole levels of 8 bits are those of `to_levels`, ties to even."""
    x = torch.randn(9, 77) * torch.logspace(-20, 20, 9)[:, None]
    x[1, :5] = torch.tensor([127, 0.5, 1.5, -2.5, -63.5])
    x[1, 5:] = 0
    rows = quantise(x)
    levels, tops = rows.signed(), rows.tops
    assert levels.dtype == torch.int8
    assert torch.equal(rows.unsigned(), (levels.int() + 128).to(torch.uint8))
    assert levels[1, :5].tolist() == [127, 0, 2, -2, -64]
    assert torch.equal(levels.float(), to_levels(x)[0])
    assert torch.equal(tops, x.abs().amax(-1, keepdim=True))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 9), st.integers(1, 300), st.integers(-149, 127), st.integers(0, 2**32))
def test_both_versions_give_the_same_bits(rows: int, width: int, octave: int, seed: int) -> None:
    """Of any numbers from the least to the greatest floats, and of no rows at all."""
    torch.manual_seed(seed)
    x = (torch.randn(rows, width).clamp_(-1, 1).double() * 2.0**octave).float()
    x[torch.rand(rows, width) < 0.1] = 0
    found = compiled.quantise(x)
    assert same(found, naive.quantise(x))
    assert found.levels.shape == x.shape
    assert found.tops.shape == (rows, 1)
    assert found.signed().ne(-128).all()


@VERSIONS
@pytest.mark.parametrize("kind", NOT_FINITE)
def test_a_row_does_not_see_its_neighbours(quantise, kind: str) -> None:
    """Zeros, the least and the greatest floats, and what is no number, change no bit of a row beside them."""
    x = torch.randn(6, 100)
    alone = quantise(x[5:])
    x[0], x[1], x[2] = 0, 1e-45, 3e38
    for row, column in ((3, 0), (4, 99)):
        numbers.spoil(x, (row, column), kind)
    rows = quantise(x)
    levels, tops = rows.signed(), rows.tops
    assert same((levels[5:], tops[5:]), alone)
    assert not levels[:2].any()
    assert levels[2].eq(LEVELS).all()
    assert not tops[3:5].isfinite().any()
    assert levels.ne(-128).all()
