"""Matrix products of the linear layers: float, and with weights of 8 or 4 bits. `linear_w8a8` is exact."""

from confide_kernels.gemm.naive import (
    MAX_WIDTH,
    Product,
    linear,
    linear_w8a16,
    multiply_int8,
)
from confide_kernels.gemm.onednn import linear_w8a8, pack_w8a8
from confide_kernels.gemm.packed import linear_w4a16, pack_w4a16

__all__ = [
    "MAX_WIDTH",
    "Product",
    "linear",
    "linear_w4a16",
    "linear_w8a8",
    "linear_w8a16",
    "multiply_int8",
    "pack_w4a16",
    "pack_w8a8",
]
