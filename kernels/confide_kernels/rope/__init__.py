"""Rotary position embedding, halves layout (rotate i with i + d/2); with it, storing keys and values."""

from torch import Tensor

from confide_kernels.gemm import Product
from confide_kernels.place import on_gpu
from confide_kernels.rope import compiled, naive
from confide_kernels.rope.naive import Cache, Heads, table

__all__ = ["Cache", "Heads", "rotate_store", "rotate_store_floats", "table"]


def rotate_store(
    qkv: Product, heads: Heads, turns: Tensor, positions: Tensor, cache: Cache, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn queries and keys, write keys and values to the cache's rows; return queries and their tops. Exact.

    turns: a `table`; positions, rows: [n] int64, in the table and the cache. Queries: [n, heads, head_dim] int8;
    tops: [n, heads] float32. A row whose position or place is out of range is an error; on a GPU nothing of it is
    stored, and its tops are NaN.
    """
    if on_gpu(qkv.columns):
        from confide_kernels.rope import triton

        return triton.rotate_store(qkv, heads, turns, positions, cache, rows)
    if qkv.columns.is_cpu:
        return compiled.rotate_store(qkv, heads, turns, positions, cache, rows)
    return naive.rotate_store(qkv, heads, turns, positions, cache, rows)


def rotate_store_floats(
    qkv: Tensor, heads: Heads, turns: Tensor, positions: Tensor, data: Tensor, rows: Tensor
) -> Tensor:
    """Turn queries and keys, write keys and values to the cache's rows; return queries. In the cache's floats.

    qkv: [n, (queries + 2 * kv_heads) * head_dim]; data: [2, rows, kv_heads, head_dim], keys first. Queries: [n,
    queries, head_dim] of its dtype. Else as `rotate_store`; what is out of range has queries of NaN on a GPU.
    """
    if on_gpu(qkv):
        from confide_kernels.rope import triton

        return triton.rotate_store_floats(qkv, heads, turns, positions, data, rows)
    return naive.rotate_store_floats(qkv, heads, turns, positions, data, rows)
