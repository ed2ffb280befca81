"""Round rows to whole levels, each row by its own greatest magnitude. Exact."""

from torch import Tensor

from confide_kernels.place import on_gpu
from confide_kernels.quant import compiled, naive
from confide_kernels.quant.naive import LEVELS, Rows, to_levels

__all__ = ["LEVELS", "Rows", "quantise", "to_levels"]


def quantise(x: Tensor) -> Rows:
    """Return the rows of `x` [n, width] float32, quantised."""
    if on_gpu(x):
        from confide_kernels.quant import triton

        return triton.quantise(x)
    return compiled.quantise(x) if x.is_cpu else naive.quantise(x)
