"""Matrix products of the linear layers: float, and with weights of 8 or 4 bits. `linear_w8a8` is exact."""

from torch import Tensor

from confide_kernels.gemm import naive, onednn, packed
from confide_kernels.gemm.naive import MAX_WIDTH, Product, linear
from confide_kernels.gemm.onednn import pack_w8a8
from confide_kernels.gemm.packed import pack_w4a16
from confide_kernels.place import on_gpu
from confide_kernels.quant.naive import Rows

__all__ = [
    "MAX_WIDTH",
    "Product",
    "linear",
    "linear_w4a16",
    "linear_w8a8",
    "linear_w8a16",
    "pack_w4a16",
    "pack_w8a8",
]


def linear_w8a8(rows: Rows, weight: Tensor, weight_scales: Tensor) -> Product:
    """Return `rows @ weight.T`. Exact for in <= MAX_WIDTH.

    rows: [n, in]; weight: [out, in] int8 without -128, as `pack_w8a8` returned it; weight_scales: [out]. A level of
    row i times one of weight row j is tops[i] * weight_scales[j].
    """
    if on_gpu(rows.levels):
        from confide_kernels.gemm import triton

        return triton.linear_w8a8(rows, weight, weight_scales)
    return onednn.linear_w8a8(rows, weight, weight_scales)


def linear_w8a16(x: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Return `x @ (weight * weight_scales).T` in x's dtype.

    x: [n, in]; weight: [out, in] int8; weight_scales: [out].
    """
    if on_gpu(x):
        from confide_kernels.gemm import triton

        return triton.linear_w8a16(x, weight, weight_scales)
    return naive.linear_w8a16(x, weight, weight_scales)


def linear_w4a16(x: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Return `x @ weight.T` in x's dtype, of weights that `pack_w4a16` returned for it.

    x: [n, in]. What weights of 4 bits are, the definition says.
    """
    if on_gpu(x):
        from confide_kernels.gemm import triton

        return triton.linear_w4a16(x, weight, weight_scales)
    return packed.linear_w4a16(x, weight, weight_scales)
