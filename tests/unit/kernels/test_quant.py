"""Rounding rows to levels."""

import torch
from confide_kernels.quant import LEVELS, quantise, to_levels


def test_levels() -> None:
    """Each row reaches the greatest level, and none is off by more than half of one."""
    x = torch.randn(5, 3, 77) * torch.logspace(-20, 20, 5)[:, None, None]
    levels, tops = quantise(x)
    assert levels.dtype == torch.int8
    assert levels.abs().amax(-1).eq(LEVELS).all()
    assert torch.equal(tops, x.abs().amax(-1, keepdim=True))
    assert ((levels * (tops / LEVELS) - x).abs() <= tops / LEVELS * 0.501).all()
    assert torch.equal(to_levels(x)[0], levels.float())


def test_a_row_does_not_see_its_neighbours() -> None:
    """Zeros, the least and the greatest floats beside it change no bit of a row."""
    x = torch.randn(5, 100)
    alone = quantise(x[4:])
    x[0], x[1], x[2], x[3] = 0, 1e-45, 3e38, torch.nan
    levels, tops = quantise(x)
    assert torch.equal(levels[4:], alone[0])
    assert torch.equal(tops[4:], alone[1])
    assert not levels[0].any()
    assert levels[2].eq(LEVELS).all()
    assert tops[3].isnan().all()
