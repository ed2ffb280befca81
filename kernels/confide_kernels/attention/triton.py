"""The same for GPUs. Exact: sums and maxima are of integers, so tiles, splits and atomic operations leave no trace.

Few queries of a span (decoding): its context is cut into splits, in three passes over them. Scores are kept from
the first, with their maximum; the second finds how far weights go, and their sum; the third meets the values.
Many queries (reading a prompt): a program does all three for its rows, and makes the scores anew each time.
"""

from typing import Final

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.attention import exact
from confide_kernels.attention.spans import Spans
from confide_kernels.attention.tiles import Placed, Tiles, place, split_for
from confide_kernels.attention.triton_float import attend
from confide_kernels.attention.triton_parts import (
    decode,
    decode_top,
    digits_of,
    join_digits,
    load_queries,
    load_tile,
    load_value_tops,
    load_values,
    make_scores,
    make_weights,
    reach_of,
    row_of,
)
from confide_kernels.gpu import EXACT, block_of, divide, kernel, ordered_bits
from confide_kernels.quant.naive import Rows
from confide_kernels.quant.triton import quantise
from confide_kernels.rope import Cache

# Rows of context that a program takes at once, and of queries, where they are few, where they are many, and where
# they are many of wider heads than that. With more, registers are spilled.
_BLOCK: Final = 64
_FEW: Final = 16
_MANY: Final = 32
_WIDE: Final = 128
_BELOW = tl.constexpr(-(2**31))
_MOST, _UNIT = tl.constexpr(exact.MOST.item()), tl.constexpr(exact.UNIT.item())

__all__ = ["attend", "attend_int8"]


def attend_int8(q: Tensor, q_tops: Tensor, cache: Cache, spans: Spans | Placed, split: int | None = None) -> Rows:
    """As the definition. `spans` may have been placed before; `split` rows of context go to a program."""
    n, heads, width = q.shape
    kv_heads = cache.data.shape[2]
    if not (cache.data.is_contiguous() and cache.tops.is_contiguous()):
        raise ValueError("the cache must be contiguous")
    if isinstance(spans, Spans):
        spans = place(spans, heads // kv_heads, q.device)
    q, q_tops = q.contiguous(), q_tops.contiguous()
    out = torch.empty(n, heads * width, device=q.device)
    if len(spans.few.numbers):
        _attend_few(q, q_tops, cache, spans, out, split)
    if len(spans.many.numbers):
        size = _MANY if width <= _WIDE else _FEW
        _attend_many[(spans.many.programs(size), kv_heads)](
            *_inputs(q, q_tops, cache, spans, spans.many),
            out,
            **_shape(q, cache, spans, spans.many, size),
            num_warps=8,
            # Triton 3.6 fails to pipeline products that are not added up.
            num_stages=1,
            **EXACT,
        )
    return quantise(out)


def _attend_few(q: Tensor, q_tops: Tensor, cache: Cache, spans: Placed, out: Tensor, split: int | None) -> None:
    (_, heads, width), kv_heads, tiles = q.shape, cache.data.shape[2], spans.few
    # Not for rows that go the other way: theirs would be as many as a prompt has, over the longest context of all.
    n = tiles.rows
    programs = tiles.programs(_FEW)
    split = split or split_for(tiles.longest, programs * kv_heads, _BLOCK)
    splits = -(-tiles.longest // split)
    scores = torch.empty(n, heads, splits * split, device=q.device)
    greatest = torch.full((n, heads), _BELOW.value, dtype=torch.int32, device=q.device)
    # In one piece, to be zeroed in one go.
    zeros = torch.zeros(n * heads * (width + 2), dtype=torch.int64, device=q.device)
    sums, totals, tops = torch.split(zeros, [n * heads * width, n * heads, n * heads])
    tops = tops.view(torch.int32)
    grid = programs, kv_heads, splits
    inputs, shape = _inputs(q, q_tops, cache, spans, tiles), _shape(q, cache, spans, tiles, _FEW)
    kept = {"scores": scores, "greatest": greatest, "length": splits * split, "split": split}
    _score[grid](*inputs, **kept, **shape, num_warps=4, **EXACT)
    _weigh[grid](*inputs, **kept, tops=tops, totals=totals, **shape, num_warps=4, **EXACT)
    _sum[grid](*inputs, **kept, tops=tops, sums=sums, **shape, num_warps=4 if width <= 64 else 8, **EXACT)
    _join[grid[:2]](
        tiles.numbers,
        tops,
        totals,
        sums,
        out,
        **{k: shape[k] for k in ("heads", "kv_heads", "width", "tile", "size", "wide")},
        **EXACT,
    )


def _inputs(q: Tensor, q_tops: Tensor, cache: Cache, spans: Placed, tiles: Tiles) -> tuple[Tensor | int, ...]:
    table = exact.table(q.device)
    return q, q_tops, cache.data, cache.tops, tiles.numbers, spans.rows, table, cache.data.shape[1]


def _shape(q: Tensor, cache: Cache, spans: Placed, tiles: Tiles, size: int) -> dict[str, int | float]:
    heads, width = q.shape[1:]
    return {
        "heads": heads,
        "kv_heads": cache.data.shape[2],
        "width": width,
        "tile": tiles.size,
        "size": size,
        "wide": block_of(width, 32),
        "block": _BLOCK,
        "page_rows": spans.page_rows,
        "sharp": exact.sharpness(width).item(),
    }


@kernel
def _score(
    q: tl.tensor,
    q_tops: tl.tensor,
    kept: tl.tensor,
    kept_tops: tl.tensor,
    numbers: tl.tensor,
    rows: tl.tensor,
    table: tl.tensor,
    cache_rows: tl.tensor,
    scores: tl.tensor,
    greatest: tl.tensor,
    length: tl.tensor,
    split: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    tile: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
    page_rows: tl.constexpr,
    sharp: tl.constexpr,
) -> None:
    places, own, sees, last, where, at = load_tile(numbers, heads, kv_heads, tile, size)
    begin = tl.program_id(2) * split
    if begin < last:
        query, sharpness = load_queries(q, places, own, width, wide), tl.load(q_tops + places, own, 0.0) * sharp
        most = tl.full([size], _BELOW, tl.int32)
        for first in range(begin, tl.minimum(begin + split, last), block):
            t = first + tl.arange(0, block)
            row = row_of(rows, where, t, last, page_rows)
            made = make_scores(query, sharpness, kept, kept_tops, row, t < last, cache_rows, kv_heads, width, wide)
            shown = own[:, None] & (t[None, :] < sees[:, None])
            tl.store(scores + at[:, None] * length + t[None, :], made, shown)
            most = tl.maximum(most, tl.max(tl.where(shown, ordered_bits(made), _BELOW), 1))
        tl.atomic_max(greatest + at, most, own)


@kernel
def _weigh(
    q: tl.tensor,
    q_tops: tl.tensor,
    kept: tl.tensor,
    kept_tops: tl.tensor,
    numbers: tl.tensor,
    rows: tl.tensor,
    table: tl.tensor,
    cache_rows: tl.tensor,
    scores: tl.tensor,
    greatest: tl.tensor,
    length: tl.tensor,
    tops: tl.tensor,
    totals: tl.tensor,
    split: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    tile: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
    page_rows: tl.constexpr,
    sharp: tl.constexpr,
) -> None:
    _places, own, sees, last, where, at = load_tile(numbers, heads, kv_heads, tile, size)
    begin = tl.program_id(2) * split
    if begin < last:
        most = decode(tl.load(greatest + at, own, 0))
        reach, total = tl.zeros([size], tl.int32), tl.zeros([size], tl.int64)
        for first in range(begin, tl.minimum(begin + split, last), block):
            t = first + tl.arange(0, block)
            row = row_of(rows, where, t, last, page_rows)
            shown = own[:, None] & (t[None, :] < sees[:, None])
            made = tl.load(scores + at[:, None] * length + t[None, :], shown, 0.0)
            weights, odd = make_weights(made, most, shown, table)
            # Of a block in int32: 64 times 2^24 is far from its end.
            total += tl.sum(weights, 1)
            scaled = weights.to(tl.float32) * load_value_tops(kept_tops, row, t < last, cache_rows, kv_heads)
            reach = tl.maximum(reach, reach_of(tl.where(shown, scaled, 0.0), odd))
        tl.atomic_max(tops + at, reach, own)
        tl.atomic_add(totals + at, total, own)


@kernel
def _sum(
    q: tl.tensor,
    q_tops: tl.tensor,
    kept: tl.tensor,
    kept_tops: tl.tensor,
    numbers: tl.tensor,
    rows: tl.tensor,
    table: tl.tensor,
    cache_rows: tl.tensor,
    scores: tl.tensor,
    greatest: tl.tensor,
    length: tl.tensor,
    tops: tl.tensor,
    sums: tl.tensor,
    split: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    tile: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
    page_rows: tl.constexpr,
    sharp: tl.constexpr,
) -> None:
    _places, own, sees, last, where, at = load_tile(numbers, heads, kv_heads, tile, size)
    begin = tl.program_id(2) * split
    if begin < last:
        most = decode(tl.load(greatest + at, own, 0))
        per_level = divide(_MOST, decode_top(tl.load(tops + at, own, 0)))
        high, middle = tl.zeros([size, wide], tl.int32), tl.zeros([size, wide], tl.int32)
        low = tl.zeros([size, wide], tl.int32)
        for first in range(begin, tl.minimum(begin + split, last), block):
            t = first + tl.arange(0, block)
            row = row_of(rows, where, t, last, page_rows)
            shown = own[:, None] & (t[None, :] < sees[:, None])
            made = tl.load(scores + at[:, None] * length + t[None, :], shown, 0.0)
            weights, _ = make_weights(made, most, shown, table)
            scaled = weights.to(tl.float32) * load_value_tops(kept_tops, row, t < last, cache_rows, kv_heads)
            a, b, c = digits_of(tl.where(shown, scaled, 0.0), per_level)
            values = load_values(kept, row, t < last, cache_rows, kv_heads, width, wide)
            high = tl.dot(a, values, high, out_dtype=tl.int32)
            middle = tl.dot(b, values, middle, out_dtype=tl.int32)
            low = tl.dot(c, values, low, out_dtype=tl.int32)
        j = tl.arange(0, wide)
        shown = own[:, None] & (j < width)[None, :]
        tl.atomic_add(sums + at[:, None] * width + j[None, :], join_digits(high, middle, low), shown)


@kernel
def _join(
    numbers: tl.tensor,
    tops: tl.tensor,
    totals: tl.tensor,
    sums: tl.tensor,
    out: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    tile: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    places, own, _sees, _last, _where, at = load_tile(numbers, heads, kv_heads, tile, size)
    unit = (
        decode_top(tl.load(tops + at, own, 0)).to(tl.float64) * _UNIT / tl.load(totals + at, own, 1).to(tl.float64)
    )
    j = tl.arange(0, wide)
    shown = own[:, None] & (j < width)[None, :]
    made = tl.load(sums + at[:, None] * width + j[None, :], shown, 0).to(tl.float64) * unit[:, None]
    tl.store(out + places[:, None] * width + j[None, :], made.to(tl.float32), shown)


@kernel
def _attend_many(
    q: tl.tensor,
    q_tops: tl.tensor,
    kept: tl.tensor,
    kept_tops: tl.tensor,
    numbers: tl.tensor,
    rows: tl.tensor,
    table: tl.tensor,
    cache_rows: tl.tensor,
    out: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    tile: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
    page_rows: tl.constexpr,
    sharp: tl.constexpr,
) -> None:
    places, own, sees, last, where, _at = load_tile(numbers, heads, kv_heads, tile, size)
    query, sharpness = load_queries(q, places, own, width, wide), tl.load(q_tops + places, own, 0.0) * sharp
    bits = tl.full([size], _BELOW, tl.int32)
    for first in range(0, last, block):
        t = first + tl.arange(0, block)
        row = row_of(rows, where, t, last, page_rows)
        made = make_scores(query, sharpness, kept, kept_tops, row, t < last, cache_rows, kv_heads, width, wide)
        bits = tl.maximum(bits, tl.max(tl.where(t[None, :] < sees[:, None], ordered_bits(made), _BELOW), 1))
    most = decode(bits)
    reach, total = tl.zeros([size], tl.int32), tl.zeros([size], tl.int64)
    for first in range(0, last, block):
        t = first + tl.arange(0, block)
        row = row_of(rows, where, t, last, page_rows)
        shown = own[:, None] & (t[None, :] < sees[:, None])
        made = make_scores(query, sharpness, kept, kept_tops, row, t < last, cache_rows, kv_heads, width, wide)
        weights, odd = make_weights(made, most, shown, table)
        total += tl.sum(weights, 1)
        scaled = weights.to(tl.float32) * load_value_tops(kept_tops, row, t < last, cache_rows, kv_heads)
        reach = tl.maximum(reach, reach_of(tl.where(shown, scaled, 0.0), odd))
    per_level = divide(_MOST, decode_top(reach))
    high, middle = tl.zeros([size, wide], tl.int32), tl.zeros([size, wide], tl.int32)
    low = tl.zeros([size, wide], tl.int32)
    for first in range(0, last, block):
        t = first + tl.arange(0, block)
        row = row_of(rows, where, t, last, page_rows)
        shown = own[:, None] & (t[None, :] < sees[:, None])
        made = make_scores(query, sharpness, kept, kept_tops, row, t < last, cache_rows, kv_heads, width, wide)
        weights, _ = make_weights(made, most, shown, table)
        scaled = weights.to(tl.float32) * load_value_tops(kept_tops, row, t < last, cache_rows, kv_heads)
        a, b, c = digits_of(tl.where(shown, scaled, 0.0), per_level)
        values = load_values(kept, row, t < last, cache_rows, kv_heads, width, wide)
        high = tl.dot(a, values, high, out_dtype=tl.int32)
        middle = tl.dot(b, values, middle, out_dtype=tl.int32)
        low = tl.dot(c, values, low, out_dtype=tl.int32)
    unit = decode_top(reach).to(tl.float64) * _UNIT / tl.where(own, total, 1).to(tl.float64)
    j = tl.arange(0, wide)
    at, shown = places[:, None] * width + j[None, :], own[:, None] & (j < width)[None, :]
    tl.store(out + at, (join_digits(high, middle, low).to(tl.float64) * unit[:, None]).to(tl.float32), shown)
