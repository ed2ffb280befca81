"""The definition in plain torch: float32 inside, rounded once on the way out."""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Return `x / rms(x) * weight` as `dtype`. x: [n, width] float32; weight: [width] float32."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(epsilon))
    return (x * scale).mul_(weight).to(dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Add `x` [n, width] of any dtype to `residual` (float32, in place), then return its RMS norm as `dtype`."""
    return rms_norm(residual.add_(x), weight, epsilon, dtype)
