"""The definition in plain torch: float32 inside, rounded once on the way out."""

import math
from functools import cache

import torch
from torch import Tensor

from confide_kernels.quant.naive import LEVELS, quantise, to_levels


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Return `x / rms(x) * weight` as `dtype`. x: [n, width] float32; weight: [width] float32."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(epsilon))
    return (x * scale).mul_(weight).to(dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Add `x` [n, width] of any dtype to `residual` (float32, in place), then return its RMS norm as `dtype`."""
    return rms_norm(residual.add_(x), weight, epsilon, dtype)


def rms_norm_int8(x: Tensor, epsilon: float, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the RMS norm of `x` [n, width] float32 as int8 levels and what 127 levels stand for, [n, 1]. Exact.

    Without `weight` it belongs in the columns of the matrix that comes next. The mean square is that of the levels
    of x themselves, so the row's own magnitude cancels but for epsilon.
    """
    levels, tops, per_unit = to_levels(x)
    width = x.shape[-1]
    # Whole numbers under 2^14: their sum is exact in float64.
    squares = torch.mul(levels, levels).sum(-1, keepdim=True, dtype=torch.float64)
    floor = per_unit.double().mul_(_constant(math.sqrt(epsilon * width)))
    scales = squares.add_(floor.mul_(floor)).rsqrt_().mul_(_constant(LEVELS * math.sqrt(width))).float()
    if weight is None:
        return levels.to(torch.int8), scales
    weighted, weighted_tops = quantise(torch.mul(x, weight))
    return weighted, weighted_tops.mul_(scales.div_(tops))


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
