"""Rotary position embedding, halves layout (rotate i with i + d/2); with it, storing keys and values."""

from torch import Tensor

from confide_kernels.gemm import Product
from confide_kernels.rope import compiled, naive
from confide_kernels.rope.naive import Cache, Heads, rotate, table

__all__ = ["Cache", "Heads", "rotate", "rotate_store", "table"]


def rotate_store(
    qkv: Product, heads: Heads, turns: Tensor, positions: Tensor, cache: Cache, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn queries and keys, write keys and values to the cache's rows; return queries and their tops. Exact.

    turns: a `table`; positions, rows: [n] int64, in the table and the cache. Queries: [n, heads, head_dim] int8;
    tops: [n, heads] float32.
    """
    if qkv.columns.is_cpu:
        return compiled.rotate_store(qkv, heads, turns, positions, cache, rows)
    return naive.rotate_store(qkv, heads, turns, positions, cache, rows)
