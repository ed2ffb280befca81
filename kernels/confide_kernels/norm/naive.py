"""The definition in plain torch: float32 inside, rounded once on the way out."""

import math
from functools import cache

import torch
from torch import Tensor

from confide_kernels.gemm.naive import Product
from confide_kernels.quant.naive import LEVELS, Rows, to_levels


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Return `x / rms(x) * weight` as `dtype`. x: [n, width] float32; weight: [width] float32."""
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True).add_(epsilon))
    return (normed if weight is None else normed.mul_(weight)).to(dtype)


def add_rms_norm_int8(residual: Tensor, added: Product | None, epsilon: float) -> Rows:
    """Add to `residual` [n, width] float32, in place; return its RMS norm, quantised. Exact.

    The mean square is that of the levels of the row itself, so its own magnitude cancels but for epsilon.
    """
    if added is not None:
        residual.add_(added.floats())
    levels, _, per_unit = to_levels(residual)
    width = residual.shape[-1]
    # Whole numbers under 2^14: their sum is exact in float64.
    squares = torch.mul(levels, levels).sum(-1, keepdim=True, dtype=torch.float64)
    floor = per_unit.double().mul_(_constant(math.sqrt(epsilon * width)))
    scales = squares.add_(floor.mul_(floor)).rsqrt_().mul_(_constant(LEVELS * math.sqrt(width))).float()
    return Rows(levels.to(torch.int8), scales)


def head_norm_exact(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return `x / rms(x) * weight` over the last dimension, float32, in 2^20 levels. Exact up to 2^12 wide."""
    width, tops = x.shape[-1], x.abs().amax(-1, keepdim=True).clamp_min_(1e-30)
    per_unit = torch.div(_constant(2.0**20), tops.double())
    levels = torch.mul(x, per_unit).round_()
    floor = per_unit.mul_(math.sqrt(epsilon * width)).square_()
    scales = torch.mul(levels, levels).sum(-1, keepdim=True).add_(floor).rsqrt_().mul_(math.sqrt(width))
    return levels.mul_(scales).mul_(weight).float()


@cache
def _constant(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
