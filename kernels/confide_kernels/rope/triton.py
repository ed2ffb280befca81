"""The same for GPUs: some heads of a row to a program."""

import math

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.gemm.naive import Product
from confide_kernels.gpu import EXACT, ROUND_WIDE, Kernel, block_of, divide, kernel, part, warps_for
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
    if not (cache.data.is_contiguous() and cache.tops.is_contiguous()):
        raise ValueError("the cache must be contiguous")
    n, (_, cache_rows, kv_heads, width) = len(columns), cache.data.shape
    queries = columns.shape[1] // width - 2 * kv_heads
    levels = torch.empty(n, queries, width, dtype=torch.int8, device=columns.device)
    tops = torch.empty(n, queries, device=columns.device)
    inputs, places = (columns, row_tops), (cache.data, cache.tops, levels, tops)
    _launch(_rotate_store, inputs, heads, turns, positions, rows, places, cache_rows, queries, kv_heads, width)
    return levels, tops


def rotate_store_floats(
    qkv: Tensor, heads: Heads, turns: Tensor, positions: Tensor, data: Tensor, rows: Tensor
) -> Tensor:
    """As the definition; of what is out of range nothing is stored, and the row's queries are NaN."""
    if not data.is_contiguous():
        raise ValueError("the cache must be contiguous")
    n, (_, cache_rows, kv_heads, width) = len(qkv), data.shape
    queries = qkv.shape[1] // width - 2 * kv_heads
    out = torch.empty(n, queries, width, dtype=data.dtype, device=data.device)
    inputs = (qkv.contiguous(),)
    _launch(
        _rotate_store_floats,
        inputs,
        heads,
        turns,
        positions,
        rows,
        (data, out),
        cache_rows,
        queries,
        kv_heads,
        width,
    )
    return out


def _launch(
    function: Kernel,
    inputs: tuple[Tensor, ...],
    heads: Heads,
    turns: Tensor,
    positions: Tensor,
    rows: Tensor,
    places: tuple[Tensor, ...],
    cache_rows: int,
    queries: int,
    kv_heads: int,
    width: int,
) -> None:
    if not turns.is_contiguous():
        raise ValueError("the table of turns must be contiguous")
    block, count = block_of(width), queries + 2 * kv_heads
    at_once = max(1, min(_BLOCK // block, block_of(count)))
    bias, q_norm, k_norm = (turns if each is None else each.contiguous() for each in heads[:3])
    function[(len(inputs[0]), -(-count // at_once))](
        *inputs,
        bias,
        q_norm,
        k_norm,
        turns,
        positions.contiguous(),
        rows.contiguous(),
        *places,
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


@part
def _floats(
    columns: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    at: tl.tensor,
    own: tl.tensor,
    biased: tl.constexpr,
) -> tl.tensor:
    x = tl.load(columns + at, own, 0.0).to(tl.float32) * scale
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


@part
def _inside(
    positions: tl.tensor, rows: tl.tensor, table_rows: tl.tensor, cache_rows: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return a row's position and place in the cache, and whether there are such; else they are 0."""
    position, to = tl.load(positions + tl.program_id(0)), tl.load(rows + tl.program_id(0))
    inside = (position >= 0) & (position < table_rows) & (to >= 0) & (to < cache_rows)
    return tl.where(inside, position, 0), tl.where(inside, to, 0), inside


@part
def _turned(
    own_row: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    turn: tl.tensor,
    head: tl.tensor,
    j: tl.tensor,
    queries: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    floor: tl.constexpr,
    unit: tl.constexpr,
    biased: tl.constexpr,
    norms_q: tl.constexpr,
    norms_k: tl.constexpr,
) -> tl.tensor:
    """Return these heads of a row: queries and keys normed and turned, values as they are."""
    own = (head < queries + 2 * kv_heads)[:, None] & (j < width)[None, :]
    partner = tl.where(j < width // 2, j + width // 2, j - width // 2)
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
        is_query = head < queries
        weight = _weights(q_norm, k_norm, j, is_query, width)
        other = _weights(q_norm, k_norm, partner, is_query, width)
        x = tl.where(chosen, _normed(x, per_unit, by, weight), x)
        y = tl.where(chosen, _normed(y, per_unit, by, other), y)

    cos, sin = tl.load(turn + j, j < width, 0.0)[None, :], tl.load(turn + width + j, j < width, 0.0)[None, :]
    return tl.where((head >= queries + kv_heads)[:, None], x, x * cos + y * sin)


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
    head, j = tl.program_id(1) * at_once + tl.arange(0, at_once), tl.arange(0, block)
    position, to, inside = _inside(positions, rows, table_rows, cache_rows)
    heads: tl.constexpr = queries + 2 * kv_heads
    own_row, turn = columns + i * heads * width, turns + position * 2 * width
    x = _turned(
        own_row,
        tl.load(row_tops + i),
        bias,
        q_norm,
        k_norm,
        turn,
        head,
        j,
        queries,
        kv_heads,
        width,
        floor,
        unit,
        biased,
        norms_q,
        norms_k,
    )
    top = top_of(x)
    whole = levels_of(x, divide(LEVELS, top)[:, None]).to(tl.int8)
    shown = (j < width)[None, :]
    at = (i * queries + head)[:, None] * width + j[None, :]
    tl.store(levels + at, whole, (head < queries)[:, None] & shown)
    tl.store(tops + i * queries + head, tl.where(inside, top, float("nan")), head < queries)
    side = (head >= queries + kv_heads).to(tl.int64)
    kv_head = head - queries - side * kv_heads
    kept_at = (side * cache_rows + to) * kv_heads + kv_head
    stored = (head >= queries) & (head < tl.where(inside, heads, 0))
    tl.store(kept + kept_at[:, None] * width + j[None, :], whole, stored[:, None] & shown)
    tl.store(kept_tops + (side * kv_heads + kv_head) * cache_rows + to, top, stored)


@kernel
def _rotate_store_floats(
    columns: tl.tensor,
    bias: tl.tensor,
    q_norm: tl.tensor,
    k_norm: tl.tensor,
    turns: tl.tensor,
    positions: tl.tensor,
    rows: tl.tensor,
    kept: tl.tensor,
    out: tl.tensor,
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
    head, j = tl.program_id(1) * at_once + tl.arange(0, at_once), tl.arange(0, block)
    position, to, inside = _inside(positions, rows, table_rows, cache_rows)
    heads: tl.constexpr = queries + 2 * kv_heads
    own_row, turn = columns + i * heads * width, turns + position * 2 * width
    x = _turned(
        own_row,
        1.0,
        bias,
        q_norm,
        k_norm,
        turn,
        head,
        j,
        queries,
        kv_heads,
        width,
        floor,
        unit,
        biased,
        norms_q,
        norms_k,
    )
    shown = (j < width)[None, :]
    x = tl.where(inside, x, float("nan")).to(out.dtype.element_ty)
    at = (i * queries + head)[:, None] * width + j[None, :]
    tl.store(out + at, x, (head < queries)[:, None] & shown)
    side = (head >= queries + kv_heads).to(tl.int64)
    kept_at = (side * cache_rows + to) * kv_heads + head - queries - side * kv_heads
    stored = (head >= queries) & (head < tl.where(inside, heads, 0))
    tl.store(kept + kept_at[:, None] * width + j[None, :], x, stored[:, None] & shown)
