"""The same for GPUs: some heads of a row to a program."""

import math

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.gemm.naive import Product
from confide_kernels.gpu import EXACT, ROUND_WIDE, block_of, divide, kernel, part, warps_for
from confide_kernels.quant.triton import LEVELS, levels_of, top_of
from confide_kernels.rope.naive import Cache, Heads

# Numbers that a program takes at once.
_BLOCK = 1024
_HEAD_LEVELS = tl.constexpr(2.0**20)


def rotate_store(
    qkv: Product, heads: Heads, turns: Tensor, positions: Tensor, cache: Cache, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """As the definition, but that nothing waits for the GPU to say that a position or row is out of range: then
    nothing is stored, and the row's tops are NaN.
    """
    columns, row_tops = (each.contiguous() for each in qkv)
    if not (cache.data.is_contiguous() and cache.tops.is_contiguous() and turns.is_contiguous()):
        raise ValueError("the cache and the table of turns must be contiguous")
    n, (_, cache_rows, kv_heads, width) = len(columns), cache.data.shape
    queries = columns.shape[1] // width - 2 * kv_heads
    levels = torch.empty(n, queries, width, dtype=torch.int8, device=columns.device)
    tops = torch.empty(n, queries, device=columns.device)
    block = block_of(width)
    at_once = max(1, min(_BLOCK // block, block_of(queries + 2 * kv_heads)))
    bias, q_norm, k_norm = (columns if each is None else each.contiguous() for each in heads[:3])
    _rotate_store[(n, -(-(queries + 2 * kv_heads) // at_once))](
        columns,
        row_tops,
        bias,
        q_norm,
        k_norm,
        turns,
        positions,
        rows,
        cache.data,
        cache.tops,
        levels,
        tops,
        len(turns),
        cache_rows,
        queries=queries,
        kv_heads=kv_heads,
        width=width,
        floor=math.sqrt(heads.epsilon * width),
        unit=math.sqrt(width),
        biased=heads.bias is not None,
        norms_q=heads.q_norm is not None,
        norms_k=heads.k_norm is not None,
        at_once=at_once,
        block=block,
        num_warps=warps_for(at_once * block),
        **EXACT,
    )
    return levels, tops


@part
def _floats(
    columns: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    at: tl.tensor,
    own: tl.tensor,
    biased: tl.constexpr,
) -> tl.tensor:
    x = tl.load(columns + at, own, 0.0) * scale
    if biased:
        x += tl.load(bias + at, own, 0.0)
    # Beyond the head 0 times a scale that is no number would be none.
    return tl.where(own, x, 0.0)


@part
def _weights(
    q_norm: tl.tensor, k_norm: tl.tensor, at: tl.tensor, is_query: tl.tensor, width: tl.constexpr
) -> tl.tensor:
    """Return each head's weights. Where queries or keys have none, what is read in their place is not used."""
    of_queries, of_keys = tl.load(q_norm + at, at < width, 0.0), tl.load(k_norm + at, at < width, 0.0)
    return tl.where(is_query[:, None], of_queries[None, :], of_keys[None, :])


@part
def _normed(x: tl.tensor, per_unit: tl.tensor, scale: tl.tensor, weight: tl.tensor) -> tl.tensor:
    levels = (x.to(tl.float64) * per_unit + ROUND_WIDE) - ROUND_WIDE
    return (levels * scale * weight.to(tl.float64)).to(tl.float32)


@kernel
def _rotate_store(
    columns: tl.tensor,
    row_tops: tl.tensor,
    bias: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    turns: tl.tensor,
    positions: tl.tensor,
    rows: tl.tensor,
    kept: tl.tensor,
    kept_tops: tl.tensor,
    levels: tl.tensor,
    tops: tl.tensor,
    table_rows: tl.tensor,
    cache_rows: tl.tensor,
    queries: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    floor: tl.constexpr,
    unit: tl.constexpr,
    biased: tl.constexpr,
    norms_q: tl.constexpr,
    norms_k: tl.constexpr,
    at_once: tl.constexpr,
    block: tl.constexpr,
) -> None:
    i = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * at_once + tl.arange(0, at_once)
    j = tl.arange(0, block)
    partner = tl.where(j < width // 2, j + width // 2, j - width // 2)
    position, to = tl.load(positions + i), tl.load(rows + i)
    inside = (position >= 0) & (position < table_rows) & (to >= 0) & (to < cache_rows)
    position, to = tl.where(inside, position, 0), tl.where(inside, to, 0)

    heads: tl.constexpr = queries + 2 * kv_heads
    own = (head < heads)[:, None] & (j < width)[None, :]
    is_query, is_value = head < queries, head >= queries + kv_heads
    own_row, scale = columns + i * heads * width, tl.load(row_tops + i)
    at, across = head[:, None] * width + j[None, :], head[:, None] * width + partner[None, :]
    x = _floats(own_row, scale, bias, at, own, biased)
    y = _floats(own_row, scale, bias, across, own, biased)

    if norms_q or norms_k:
        # In 2^20 levels, whose squares add up exactly in float64.
        per_unit = _HEAD_LEVELS / top_of(x).to(tl.float64)
        whole = (x.to(tl.float64) * per_unit[:, None] + ROUND_WIDE) - ROUND_WIDE
        least = per_unit * floor
        by = 1.0 / tl.sqrt(tl.sum(whole * whole, 1) + least * least) * unit
        per_unit, by = per_unit[:, None], by[:, None]
        first: tl.constexpr = 0 if norms_q else queries
        last: tl.constexpr = queries + kv_heads if norms_k else queries
        chosen = ((head >= first) & (head < last))[:, None] & own
        weight = _weights(q_norm, k_norm, j, is_query, width)
        other = _weights(q_norm, k_norm, partner, is_query, width)
        x = tl.where(chosen, _normed(x, per_unit, by, weight), x)
        y = tl.where(chosen, _normed(y, per_unit, by, other), y)

    turn = turns + position * 2 * width + j
    cos, sin = tl.load(turn, j < width, 0.0)[None, :], tl.load(turn + width, j < width, 0.0)[None, :]
    x = tl.where(is_value[:, None], x, x * cos + y * sin)

    top = top_of(x)
    whole = levels_of(x, divide(LEVELS, top)[:, None]).to(tl.int8)
    mine = is_query[:, None] & own
    tl.store(levels + i * queries * width + at, whole, mine)
    tl.store(tops + i * queries + head, tl.where(inside, top, float("nan")), is_query)
    side = is_value.to(tl.int64)
    kv_head = head - queries - side * kv_heads
    kept_at = (side * cache_rows + to) * kv_heads + kv_head
    stored = (head >= queries) & (head < tl.where(inside, heads, 0))
    tl.store(kept + kept_at[:, None] * width + j[None, :], whole, stored[:, None] & own)
    tl.store(kept_tops + (side * kv_heads + kv_head) * cache_rows + to, top, stored)
