"""The definition in plain torch."""

from typing import Final

import torch
from torch import Tensor

# A table is computed in pieces of one shape, too small for threads to share: its bits never depend on its length.
_PIECE: Final = 128


def table(positions: int, head_dim: int, base: float) -> Tensor:
    """Return cosines and sines, [positions, 2, head_dim] float32, halves alike but for the sign of the sines."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    pieces = []
    for start in range(0, positions, _PIECE):
        angle = torch.arange(start, start + _PIECE, dtype=torch.float64)[:, None] * frequency
        cos, sin = angle.cos(), angle.sin()
        pieces.append(torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)], 1).float())
    return torch.cat(pieces)[:positions]


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn `x` [n, heads, head_dim] float32 in place by `turns` [n, 2, head_dim], rows of `table`. Exact."""
    swapped = x.roll(x.shape[-1] // 2, -1).mul_(turns[:, None, 1])
    return x.mul_(turns[:, None, 0]).add_(swapped)
