"""Gated activation of the feed-forward layer."""

from torch import Tensor

from confide_kernels.activation import compiled, naive
from confide_kernels.activation.naive import silu_table
from confide_kernels.gemm import Product
from confide_kernels.place import on_gpu
from confide_kernels.quant import Rows

__all__ = ["silu_mul", "silu_mul_int8", "silu_table"]


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return `silu(gate) * up`, [n, width], of `gate_up` [n, 2 * width] = gate beside up, in its dtype."""
    if on_gpu(gate_up):
        from confide_kernels.activation import triton

        return triton.silu_mul(gate_up)
    return naive.silu_mul(gate_up)


def silu_mul_int8(gate_up: Product) -> Rows:
    """Return `silu(gate) * up`, quantised, of `gate_up` [n, 2 * width] = gate beside up. Exact."""
    if on_gpu(gate_up.columns):
        from confide_kernels.activation import triton

        return triton.silu_mul_int8(gate_up)
    return compiled.silu_mul_int8(gate_up) if gate_up.columns.is_cpu else naive.silu_mul_int8(gate_up)
