"""The definition in plain torch."""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from confide_kernels.gemm.naive import Product
from confide_kernels.norm.naive import head_norm_exact
from confide_kernels.quant.naive import to_levels

# A table is computed in pieces of one shape, too small for threads to share: its bits never depend on its length.
_PIECE: Final = 128


class Heads(NamedTuple):
    """What some models do to queries, keys and values before they are turned; None where one does not.

    bias: [out] float32; q_norm, k_norm: [head_dim] float32, weights of an RMS norm over each head.
    """

    bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    epsilon: float


class Cache(NamedTuple):
    """Quantised keys and values of a layer.

    data: [2, rows, kv_heads, head_dim] int8, keys first; tops: [2, kv_heads, rows] float32, what 127 levels are.
    """

    data: Tensor
    tops: Tensor


def table(positions: int, head_dim: int, base: float) -> Tensor:
    """Return cosines and sines, [positions, 2, head_dim] float32, halves alike but for the sign of the sines."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    pieces = []
    for start in range(0, positions, _PIECE):
        angle = torch.arange(start, start + _PIECE, dtype=torch.float64)[:, None] * frequency
        cos, sin = angle.cos(), angle.sin()
        pieces.append(torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)], 1).float())
    return torch.cat(pieces)[:positions]


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn `x` [n, heads, head_dim] float32 in place by `turns` [n, 2, head_dim], rows of `table`. Exact."""
    swapped = x.roll(x.shape[-1] // 2, -1).mul_(turns[:, None, 1])
    return x.mul_(turns[:, None, 0]).add_(swapped)


def rotate_store(
    qkv: Product, heads: Heads, turns: Tensor, positions: Tensor, cache: Cache, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn queries and keys, write keys and values to the cache's rows; return queries and their tops. Exact.

    qkv: [n, (queries + 2 * kv_heads) * head_dim]; turns: a `table`; positions, rows: [n] int64. Queries: [n,
    queries, head_dim] int8; tops: [n, queries] float32.
    """
    _, _, kv_heads, head_dim = cache.data.shape
    x, queries = _turned(qkv.floats(), heads, turns.index_select(0, positions), kv_heads, head_dim)
    levels, tops, _ = to_levels(x)
    levels, tops = levels.to(torch.int8), tops.squeeze(-1)
    cache.data[:, rows] = levels[:, queries:].view(-1, 2, kv_heads, head_dim).transpose(0, 1)
    cache.tops[..., rows] = tops[:, queries:].view(-1, 2, kv_heads).permute(1, 2, 0)
    return levels[:, :queries], tops[:, :queries]


def rotate_store_floats(
    qkv: Tensor, heads: Heads, turns: Tensor, positions: Tensor, data: Tensor, rows: Tensor
) -> Tensor:
    """As `rotate_store`, in floats. data: [2, rows, kv_heads, head_dim], whose dtype the queries have."""
    _, _, kv_heads, head_dim = data.shape
    x = qkv.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    x, queries = _turned(x, heads, turns.index_select(0, positions), kv_heads, head_dim)
    x = x.to(data.dtype)
    data[:, rows] = x[:, queries:].view(-1, 2, kv_heads, head_dim).transpose(0, 1)
    return x[:, :queries]


def _turned(x: Tensor, heads: Heads, turns: Tensor, kv_heads: int, head_dim: int) -> tuple[Tensor, int]:
    """Return `x` [n, ..] float32, which is overwritten, head by head, and how many heads are queries'."""
    if heads.bias is not None:
        x.add_(heads.bias)
    x = x.view(len(x), -1, head_dim)
    turned, queries = x.shape[1] - kv_heads, x.shape[1] - 2 * kv_heads
    for part, weight in ((x[:, :queries], heads.q_norm), (x[:, queries:turned], heads.k_norm)):
        if weight is not None:
            part.copy_(head_norm_exact(part, weight, heads.epsilon))
    rotate(x[:, :turned], turns)
    return x, queries
