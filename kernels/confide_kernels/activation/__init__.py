"""Gated activation of the feed-forward layer. `silu_mul_exact` is exact."""

from confide_kernels.activation.naive import silu_mul, silu_mul_exact, silu_table

__all__ = ["silu_mul", "silu_mul_exact", "silu_table"]
