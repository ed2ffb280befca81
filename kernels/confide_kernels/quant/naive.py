"""The definition in plain torch."""

from typing import Final, NamedTuple

import torch
from torch import Tensor

LEVELS: Final = 127
# Tensors without dimensions go with any device, and cost a third of a Python number of another type.
_LEVELS: Final = torch.tensor(float(LEVELS))
_TOP_BIT: Final = torch.tensor(128, dtype=torch.uint8)
# Keeps the levels of a row of zeros finite.
LEAST: Final = 1e-30


class Rows(NamedTuple):
    """Rows on their way into an integer product.

    levels: [n, width] int8 without -128, or uint8, each level plus 128; tops: [n, 1] float32, what 127 levels of a
    row stand for.
    """

    levels: Tensor
    tops: Tensor

    def signed(self) -> Tensor:
        """Return the levels as int8."""
        return self.levels if self.levels.dtype == torch.int8 else (self.levels ^ _TOP_BIT).view(torch.int8)

    def unsigned(self) -> Tensor:
        """Return the levels plus 128, as uint8."""
        return self.levels if self.levels.dtype == torch.uint8 else self.levels.view(torch.uint8) ^ _TOP_BIT


def to_levels(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Round the last dimension to whole levels in [-127, 127]; return them as float32, tops, and levels per unit.

    x: [..., width] float32. A row's top, [..., 1] float32, is its greatest magnitude: what 127 levels stand for. It
    is not finite where the row is not.
    """
    tops = x.abs().amax(-1, keepdim=True).clamp_min_(LEAST)
    per_unit = torch.div(_LEVELS, tops)
    return torch.mul(x, per_unit).round_(), tops, per_unit


def quantise(x: Tensor) -> Rows:
    """Return the levels of `to_levels` as int8, and the tops. x: [n, width] float32."""
    levels, tops, _ = to_levels(x)
    return Rows(levels.to(torch.int8), tops)
