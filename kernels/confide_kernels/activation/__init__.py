"""Gated activation of the feed-forward layer."""

from confide_kernels.activation import compiled, naive
from confide_kernels.activation.naive import silu_mul, silu_table
from confide_kernels.gemm import Product
from confide_kernels.quant import Rows

__all__ = ["silu_mul", "silu_mul_int8", "silu_table"]


def silu_mul_int8(gate_up: Product) -> Rows:
    """Return `silu(gate) * up`, quantised, of `gate_up` [n, 2 * width] = gate beside up. Exact."""
    return compiled.silu_mul_int8(gate_up) if gate_up.columns.is_cpu else naive.silu_mul_int8(gate_up)
