"""The definition in plain torch: float32 inside, rounded once on the way out."""

import math

import torch
from torch import Tensor

from confide_kernels.quant.naive import quantise, to_levels


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Return `x / rms(x) * weight` as `dtype`. x: [n, width] float32; weight: [width] float32."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(epsilon))
    return (x * scale).mul_(weight).to(dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Add `x` [n, width] of any dtype to `residual` (float32, in place), then return its RMS norm as `dtype`."""
    return rms_norm(residual.add_(x), weight, epsilon, dtype)


def rms_norm_int8(x: Tensor, epsilon: float, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the RMS norm of `x` [n, width] float32 as int8 levels and what one level is, [n, 1]. Exact.

    Without `weight` it belongs in the columns of the matrix that comes next. The mean square is that of the levels
    of x themselves, so the row's own magnitude cancels but for epsilon.
    """
    levels, units = to_levels(x)
    width = x.shape[-1]
    floor = units.reciprocal().mul_(math.sqrt(epsilon * width)).square_()
    scales = _norm(levels).square_().add_(floor).rsqrt_().mul_(math.sqrt(width)).float()
    if weight is None:
        return levels.to(torch.int8), scales
    weighted, weighted_units = quantise(torch.mul(x, weight))
    return weighted, weighted_units.mul_(scales.div_(units))


def head_norm_exact(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return `x / rms(x) * weight` over the last dimension, float32, in 2^20 levels. Exact up to 2^12 wide."""
    top = torch.linalg.vector_norm(x, float("inf"), -1, keepdim=True).clamp_min_(1e-30)
    levels = torch.mul(x, top.reciprocal().mul_(2.0**20)).round_()
    floor = top.double().reciprocal_().mul_(2.0**20 * math.sqrt(epsilon * x.shape[-1])).square_()
    scale = _norm(levels).square_().add_(floor).rsqrt_().mul_(math.sqrt(x.shape[-1]))
    return levels.mul_(scale.float()).mul_(weight)


def _norm(levels: Tensor) -> Tensor:
    """Return the length of each row of whole numbers in float64, where their squares add up exactly."""
    norm: Tensor = torch.linalg.vector_norm(levels, 2, -1, keepdim=True, dtype=torch.float64)
    return norm
