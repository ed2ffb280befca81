"""The definition in plain torch."""

import torch
from torch import Tensor


def table(positions: int, head_dim: int, base: float) -> Tensor:
    """Return cosines and sines, [positions, 2, head_dim] float32, halves alike but for the sign of the sines."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)], 1).float()


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Return `x` [n, heads, head_dim] turned by `turns` [n, 2, head_dim], rows of `table`, in x's dtype."""
    wide = x.float()
    swapped = wide.roll(wide.shape[-1] // 2, -1)
    return (wide * turns[:, None, 0]).addcmul_(swapped, turns[:, None, 1]).to(x.dtype)
