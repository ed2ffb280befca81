"""The same for GPUs. Exact: sums and maxima are of integers, so tiles, splits and atomic operations leave no trace.

Few queries of a span (decoding): its context is cut into splits, in three passes over them. Scores are kept from the
first, with their maximum; the second finds how far weights go, and their sum; the third meets the values.
Many queries (reading a prompt): a program does all three for its rows, and makes the scores anew each time.
"""

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.attention import exact
from confide_kernels.attention.spans import Spans
from confide_kernels.attention.tiles import Placed, Tiles, place
from confide_kernels.gpu import (
    EXACT,
    MAGNITUDE,
    NAN_BITS,
    block_of,
    divide,
    kernel,
    magnitude_bits,
    ordered_bits,
    part,
)
from confide_kernels.quant.naive import Rows
from confide_kernels.quant.triton import LEAST_BITS, quantise
from confide_kernels.rope import Cache

# Programs that keep every multiprocessor of a large GPU at work.
_ENOUGH = 528
_BELOW = tl.constexpr(-(2**31))
_STEP, _OCTAVE = tl.constexpr(exact.STEPS - 1), tl.constexpr(exact.STEPS.bit_length() - 1)
_SPARE, _LAST = tl.constexpr(exact.SPARE), tl.constexpr(float(exact.LAST))
_MOST, _UNIT = tl.constexpr(exact.MOST.item()), tl.constexpr(exact.UNIT.item())


def attend_int8(q: Tensor, q_tops: Tensor, cache: Cache, spans: Spans | Placed, split: int | None = None) -> Rows:
    """As the definition. `spans` may have been placed before; `split` rows of context go to a program."""
    n, heads, width = q.shape
    kv_heads = cache.data.shape[2]
    if not (cache.data.is_contiguous() and cache.tops.is_contiguous()):
        raise ValueError("the cache must be contiguous")
    if isinstance(spans, Spans):
        spans = place(spans, heads // kv_heads, q.device)
    q, sharp = q.contiguous(), torch.mul(q_tops, exact.sharpness(width)).contiguous()
    out = torch.empty(n, heads * width, device=q.device)
    if len(spans.few.numbers):
        _attend_few(q, sharp, cache, spans.few, spans.rows, out, split)
    if len(spans.many.numbers):
        _attend_many[(len(spans.many.numbers), kv_heads)](
            *_inputs(q, sharp, cache, spans.many, spans.rows),
            out,
            **_shape(q, cache, spans.many, 64),
            num_warps=8,
            **EXACT,
        )
    return quantise(out)


def split_for(longest: int, tiles: int, least: int) -> int:
    """Choose how many rows of context go to a program. No choice can be seen in the result."""
    return max(least, block_of(-(-longest // max(1, _ENOUGH // max(1, tiles)))))


def _attend_few(
    q: Tensor, sharp: Tensor, cache: Cache, tiles: Tiles, rows: Tensor, out: Tensor, split: int | None
) -> None:
    n, heads, width = q.shape
    kv_heads, block = cache.data.shape[2], 64
    split = split or split_for(tiles.longest, len(tiles.numbers) * kv_heads, block)
    split = max(split, block)
    splits = -(-tiles.longest // split)
    scores = torch.empty(n, heads, splits * split, device=q.device)
    greatest = torch.full((n, heads), _BELOW.value, dtype=torch.int32, device=q.device)
    tops = torch.zeros(n, heads, dtype=torch.int32, device=q.device)
    totals = torch.zeros(n, heads, dtype=torch.int64, device=q.device)
    sums = torch.zeros(n, heads, width, dtype=torch.int64, device=q.device)
    grid = len(tiles.numbers), kv_heads, splits
    inputs = _inputs(q, sharp, cache, tiles, rows)
    shape = _shape(q, cache, tiles, block)
    kept = {"scores": scores, "greatest": greatest, "length": splits * split, "split": split}
    _score[grid](*inputs, **kept, **shape, num_warps=4, **EXACT)
    _weigh[grid](*inputs, **kept, tops=tops, totals=totals, **shape, num_warps=4, **EXACT)
    _sum[grid](*inputs, **kept, tops=tops, sums=sums, **shape, num_warps=4, **EXACT)
    _join[(len(tiles.numbers), kv_heads)](
        tiles.numbers,
        tops,
        totals,
        sums,
        out,
        **{k: shape[k] for k in ("heads", "kv_heads", "width", "size", "wide")},
        **EXACT,
    )


def _inputs(q: Tensor, sharp: Tensor, cache: Cache, tiles: Tiles, rows: Tensor) -> tuple[Tensor | int, ...]:
    table = exact.table(q.device)
    return q, sharp, cache.data, cache.tops, tiles.numbers, rows, table, cache.data.shape[1]


def _shape(q: Tensor, cache: Cache, tiles: Tiles, block: int) -> dict[str, int]:
    heads, width = q.shape[1:]
    return {
        "heads": heads,
        "kv_heads": cache.data.shape[2],
        "width": width,
        "size": tiles.size,
        "wide": block_of(width, 32),
        "block": block,
    }


@part
def _tile(
    numbers: tl.tensor, heads: tl.constexpr, kv_heads: tl.constexpr, size: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Return a program's places among [n, heads], which of them it has, what each sees, and where that begins."""
    at = numbers + tl.program_id(0) * 4
    start, count, seen, where = tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)
    group: tl.constexpr = heads // kv_heads
    m = tl.arange(0, size)
    places = (start + m // group) * heads + tl.program_id(1) * group + m % group
    return places, m // group < count, seen + m // group, seen + count - 1, where


@part
def _queries(q: tl.tensor, places: tl.tensor, own: tl.tensor, width: tl.constexpr, wide: tl.constexpr) -> tl.tensor:
    j = tl.arange(0, wide)
    return tl.load(q + places[:, None] * width + j[None, :], own[:, None] & (j < width)[None, :], 0)


@part
def _scores(
    query: tl.tensor,
    sharp: tl.tensor,
    kept: tl.tensor,
    kept_tops: tl.tensor,
    row: tl.tensor,
    seen: tl.tensor,
    cache_rows: tl.tensor,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    wide: tl.constexpr,
) -> tl.tensor:
    head, j = tl.program_id(1), tl.arange(0, wide)
    at = (row[:, None] * kv_heads + head) * width + j[None, :]
    keys = tl.load(kept + at, seen[:, None] & (j < width)[None, :], 0)
    products = tl.dot(query, tl.trans(keys), out_dtype=tl.int32).to(tl.float32)
    return products * tl.load(kept_tops + head * cache_rows + row, seen, 0.0)[None, :] * sharp[:, None]


@part
def _value_tops(
    kept_tops: tl.tensor, row: tl.tensor, seen: tl.tensor, cache_rows: tl.tensor, kv_heads: tl.constexpr
) -> tl.tensor:
    return tl.load(kept_tops + (kv_heads + tl.program_id(1)) * cache_rows + row, seen, 0.0)[None, :]


@part
def _values(
    kept: tl.tensor,
    row: tl.tensor,
    seen: tl.tensor,
    cache_rows: tl.tensor,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    wide: tl.constexpr,
) -> tl.tensor:
    j = tl.arange(0, wide)
    at = ((cache_rows + row)[:, None] * kv_heads + tl.program_id(1)) * width + j[None, :]
    return tl.load(kept + at, seen[:, None] & (j < width)[None, :], 0)


@part
def _weights(
    scores: tl.tensor, greatest: tl.tensor, shown: tl.tensor, table: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """Return what each score weighs, int32, and which scores are not numbers."""
    distance = greatest[:, None] - scores
    odd = shown & ((distance >= 0) == 0)
    steps = tl.where(distance >= 0, tl.minimum(distance, _LAST), 0.0).to(tl.int32)
    weights = tl.load(table + (steps & _STEP)) >> ((steps >> _OCTAVE) + _SPARE)
    return tl.where(shown, weights, 0), odd


@part
def _reach(scaled: tl.tensor, odd: tl.tensor) -> tl.tensor:
    """Return the bits of each row's greatest weighted top; NaN's where a score was none."""
    bits = tl.where(odd, NAN_BITS, magnitude_bits(scaled))
    return tl.max(bits, 1)


@part
def _digits(scaled: tl.tensor, per_level: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    levels = scaled * per_level[:, None]
    whole = tl.where(levels == levels, levels, 0.0).to(tl.int32)
    return ((whole >> 14) & 127).to(tl.int8), ((whole >> 7) & 127).to(tl.int8), (whole & 127).to(tl.int8)


@part
def _together(high: tl.tensor, middle: tl.tensor, low: tl.tensor) -> tl.tensor:
    return (high.to(tl.int64) * 128 + middle.to(tl.int64)) * 128 + low.to(tl.int64)


@kernel
def _score(
    q: tl.tensor,
    sharp: tl.tensor,
    kept: tl.tensor,
    kept_tops: tl.tensor,
    numbers: tl.tensor,
    rows: tl.tensor,
    table: tl.tensor,
    cache_rows: tl.tensor,
    scores: tl.tensor,
    greatest: tl.tensor,
    length: tl.tensor,
    split: tl.constexpr,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
) -> None:
    places, own, sees, last, where = _tile(numbers, heads, kv_heads, size)
    begin = tl.program_id(2) * split
    if begin < last:
        query, sharpness = _queries(q, places, own, width, wide), tl.load(sharp + places, own, 0.0)
        most = tl.full([size], _BELOW, tl.int32)
        for step in range(0, split, block):
            t = begin + step + tl.arange(0, block)
            row = tl.load(rows + where + t, t < last, 0)
            made = _scores(query, sharpness, kept, kept_tops, row, t < last, cache_rows, kv_heads, width, wide)
            shown = own[:, None] & (t[None, :] < sees[:, None])
            tl.store(scores + places[:, None] * length + t[None, :], made, shown)
            most = tl.maximum(most, tl.max(tl.where(shown, ordered_bits(made), _BELOW), 1))
        tl.atomic_max(greatest + places, most, own)


@kernel
def _weigh(
    q: tl.tensor,
    sharp: tl.tensor,
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
    split: tl.constexpr,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
) -> None:
    places, own, sees, last, where = _tile(numbers, heads, kv_heads, size)
    begin = tl.program_id(2) * split
    if begin < last:
        most = _decoded(tl.load(greatest + places, own, 0))
        reach, total = tl.zeros([size], tl.int32), tl.zeros([size], tl.int64)
        for step in range(0, split, block):
            t = begin + step + tl.arange(0, block)
            row = tl.load(rows + where + t, t < last, 0)
            shown = own[:, None] & (t[None, :] < sees[:, None])
            made = tl.load(scores + places[:, None] * length + t[None, :], shown, 0.0)
            weights, odd = _weights(made, most, shown, table)
            total += tl.sum(weights.to(tl.int64), 1)
            scaled = weights.to(tl.float32) * _value_tops(kept_tops, row, t < last, cache_rows, kv_heads)
            reach = tl.maximum(reach, _reach(tl.where(shown, scaled, 0.0), odd))
        tl.atomic_max(tops + places, reach, own)
        tl.atomic_add(totals + places, total, own)


@kernel
def _sum(
    q: tl.tensor,
    sharp: tl.tensor,
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
    split: tl.constexpr,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
) -> None:
    places, own, sees, last, where = _tile(numbers, heads, kv_heads, size)
    begin = tl.program_id(2) * split
    if begin < last:
        most = _decoded(tl.load(greatest + places, own, 0))
        per_level = divide(_MOST, _top(tl.load(tops + places, own, 0)))
        high, middle = tl.zeros([size, wide], tl.int32), tl.zeros([size, wide], tl.int32)
        low = tl.zeros([size, wide], tl.int32)
        for step in range(0, split, block):
            t = begin + step + tl.arange(0, block)
            row = tl.load(rows + where + t, t < last, 0)
            shown = own[:, None] & (t[None, :] < sees[:, None])
            made = tl.load(scores + places[:, None] * length + t[None, :], shown, 0.0)
            weights, _ = _weights(made, most, shown, table)
            scaled = weights.to(tl.float32) * _value_tops(kept_tops, row, t < last, cache_rows, kv_heads)
            a, b, c = _digits(tl.where(shown, scaled, 0.0), per_level)
            values = _values(kept, row, t < last, cache_rows, kv_heads, width, wide)
            high = tl.dot(a, values, high, out_dtype=tl.int32)
            middle = tl.dot(b, values, middle, out_dtype=tl.int32)
            low = tl.dot(c, values, low, out_dtype=tl.int32)
        j = tl.arange(0, wide)
        at = sums + places[:, None] * width + j[None, :]
        tl.atomic_add(at, _together(high, middle, low), own[:, None] & (j < width)[None, :])


@part
def _decoded(bits: tl.tensor) -> tl.tensor:
    return (bits ^ ((bits >> 31) & MAGNITUDE)).to(tl.float32, bitcast=True)


@part
def _top(bits: tl.tensor) -> tl.tensor:
    return tl.maximum(bits, LEAST_BITS).to(tl.float32, bitcast=True)


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
    size: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    places, own, _, _, _ = _tile(numbers, heads, kv_heads, size)
    unit = (
        _top(tl.load(tops + places, own, 0)).to(tl.float64)
        * _UNIT
        / tl.load(totals + places, own, 1).to(tl.float64)
    )
    j = tl.arange(0, wide)
    at, shown = places[:, None] * width + j[None, :], own[:, None] & (j < width)[None, :]
    tl.store(out + at, (tl.load(sums + at, shown, 0).to(tl.float64) * unit[:, None]).to(tl.float32), shown)


@kernel
def _attend_many(
    q: tl.tensor,
    sharp: tl.tensor,
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
    size: tl.constexpr,
    wide: tl.constexpr,
    block: tl.constexpr,
) -> None:
    places, own, sees, last, where = _tile(numbers, heads, kv_heads, size)
    query, sharpness = _queries(q, places, own, width, wide), tl.load(sharp + places, own, 0.0)
    bits = tl.full([size], _BELOW, tl.int32)
    for first in range(0, last, block):
        t = first + tl.arange(0, block)
        row = tl.load(rows + where + t, t < last, 0)
        made = _scores(query, sharpness, kept, kept_tops, row, t < last, cache_rows, kv_heads, width, wide)
        bits = tl.maximum(bits, tl.max(tl.where(t[None, :] < sees[:, None], ordered_bits(made), _BELOW), 1))
    most = _decoded(bits)
    reach, total = tl.zeros([size], tl.int32), tl.zeros([size], tl.int64)
    for first in range(0, last, block):
        t = first + tl.arange(0, block)
        row = tl.load(rows + where + t, t < last, 0)
        shown = own[:, None] & (t[None, :] < sees[:, None])
        made = _scores(query, sharpness, kept, kept_tops, row, t < last, cache_rows, kv_heads, width, wide)
        weights, odd = _weights(made, most, shown, table)
        total += tl.sum(weights.to(tl.int64), 1)
        scaled = weights.to(tl.float32) * _value_tops(kept_tops, row, t < last, cache_rows, kv_heads)
        reach = tl.maximum(reach, _reach(tl.where(shown, scaled, 0.0), odd))
    per_level = divide(_MOST, _top(reach))
    high, middle = tl.zeros([size, wide], tl.int32), tl.zeros([size, wide], tl.int32)
    low = tl.zeros([size, wide], tl.int32)
    for first in range(0, last, block):
        t = first + tl.arange(0, block)
        row = tl.load(rows + where + t, t < last, 0)
        shown = own[:, None] & (t[None, :] < sees[:, None])
        made = _scores(query, sharpness, kept, kept_tops, row, t < last, cache_rows, kv_heads, width, wide)
        weights, _ = _weights(made, most, shown, table)
        scaled = weights.to(tl.float32) * _value_tops(kept_tops, row, t < last, cache_rows, kv_heads)
        a, b, c = _digits(tl.where(shown, scaled, 0.0), per_level)
        values = _values(kept, row, t < last, cache_rows, kv_heads, width, wide)
        high = tl.dot(a, values, high, out_dtype=tl.int32)
        middle = tl.dot(b, values, middle, out_dtype=tl.int32)
        low = tl.dot(c, values, low, out_dtype=tl.int32)
    unit = _top(reach).to(tl.float64) * _UNIT / tl.where(own, total, 1).to(tl.float64)
    j = tl.arange(0, wide)
    at, shown = places[:, None] * width + j[None, :], own[:, None] & (j < width)[None, :]
    tl.store(out + at, (_together(high, middle, low).to(tl.float64) * unit[:, None]).to(tl.float32), shown)
