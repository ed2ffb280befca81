"""The definition in plain torch."""

from typing import Final

import torch
from torch import Tensor

LEVELS: Final = 127
# Tensors without dimensions go with any device, and cost a third of a Python number of another type.
_LEVELS: Final = torch.tensor(float(LEVELS))
# Keeps the levels of a row of zeros finite.
_LEAST: Final = 1e-30


def to_levels(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Round the last dimension to whole levels in [-127, 127]; return them as float32, tops, and levels per unit.

    x: [..., width] float32. A row's top, [..., 1] float32, is its greatest magnitude: what 127 levels stand for. It
    is not finite where the row is not.
    """
    tops = x.abs().amax(-1, keepdim=True).clamp_min_(_LEAST)
    per_unit = torch.div(_LEVELS, tops)
    return torch.mul(x, per_unit).round_(), tops, per_unit


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the levels of `to_levels` as int8, and the tops."""
    levels, tops, _ = to_levels(x)
    return levels.to(torch.int8), tops
