"""RMS norm of floats, and, with the residual add before it, of rows on their way to integer products."""

import torch
from torch import Tensor

from confide_kernels.gemm import Product
from confide_kernels.norm import compiled, naive
from confide_kernels.place import on_gpu
from confide_kernels.quant import Rows

__all__ = ["add_rms_norm_int8", "rms_norm"]


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Return `x / rms(x) * weight` as `dtype`. x: [n, width] float32; weight: [width] float32."""
    if on_gpu(x):
        from confide_kernels.norm import triton

        return triton.rms_norm(x, weight, epsilon, dtype)
    return naive.rms_norm(x, weight, epsilon, dtype)


def add_rms_norm_int8(residual: Tensor, added: Product | None, epsilon: float) -> Rows:
    """Add to `residual` [n, width] float32, in place; return its RMS norm, quantised. Exact.

    The norm's weights belong in the columns of the matrix that comes next.
    """
    if on_gpu(residual):
        from confide_kernels.norm import triton

        return triton.add_rms_norm_int8(residual, added, epsilon)
    if residual.is_cpu:
        return compiled.add_rms_norm_int8(residual, added, epsilon)
    return naive.add_rms_norm_int8(residual, added, epsilon)
