"""Matrix products of the linear layers: float, and with weights of 8 or 4 bits. `linear_w8a8` is exact."""

from confide_kernels.gemm.naive import MAX_WIDTH, linear, linear_w4a16, linear_w8a8, linear_w8a16, multiply_int8

__all__ = ["MAX_WIDTH", "linear", "linear_w4a16", "linear_w8a8", "linear_w8a16", "multiply_int8"]
