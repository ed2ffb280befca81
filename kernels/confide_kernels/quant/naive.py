"""The definition in plain torch."""

from typing import Final

import torch
from torch import Tensor

LEVELS: Final = 127
# Keeps the levels of a row of zeros finite; its scale is then this over LEVELS, times levels of zero.
_LEAST: Final = 1e-30


def to_levels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round the last dimension to whole levels in [-127, 127]; return them as float32, and what one level is.

    x: [..., width] float32. The scales, [..., 1] float32, are not finite where the row is not.
    """
    top = torch.linalg.vector_norm(x, float("inf"), -1, keepdim=True).clamp_min_(_LEAST)
    return torch.mul(x, top.reciprocal().mul_(LEVELS)).round_(), top.mul_(1 / LEVELS)


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the levels of `to_levels` as int8, and the scales."""
    levels, scales = to_levels(x)
    return levels.to(torch.int8), scales
