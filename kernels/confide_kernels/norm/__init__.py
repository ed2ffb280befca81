"""RMS norm of floats, and, with the residual add before it, of rows on their way to integer products."""

from torch import Tensor

from confide_kernels.gemm import Product
from confide_kernels.norm import compiled, naive
from confide_kernels.norm.naive import rms_norm
from confide_kernels.quant import Rows

__all__ = ["add_rms_norm_int8", "head_norm_exact", "rms_norm"]

head_norm_exact = naive.head_norm_exact


def add_rms_norm_int8(residual: Tensor, added: Product | None, epsilon: float) -> Rows:
    """Add to `residual` [n, width] float32, in place; return its RMS norm, quantised. Exact.

    The norm's weights belong in the columns of the matrix that comes next.
    """
    if residual.is_cpu:
        return compiled.add_rms_norm_int8(residual, added, epsilon)
    return naive.add_rms_norm_int8(residual, added, epsilon)
