"""What the kernels of attention share: a program's tile, scores, weights and their digits."""

import triton.language as tl

from confide_kernels.attention import exact
from confide_kernels.gpu import MAGNITUDE, NAN_BITS, magnitude_bits, part
from confide_kernels.quant.triton import LEAST_BITS

_STEP, _OCTAVE = tl.constexpr(exact.STEPS - 1), tl.constexpr(exact.STEPS.bit_length() - 1)
_SPARE, _LAST = tl.constexpr(exact.SPARE), tl.constexpr(float(exact.LAST))


@part
def load_tile(
    numbers: tl.tensor, heads: tl.constexpr, kv_heads: tl.constexpr, tile: tl.constexpr, size: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Return a program's places among [n, heads], which of them it has, what each sees, the most that any does,
    where that begins, and their places among the rows of all tiles. A program has `size` rows of a tile's `tile`.
    """
    shares: tl.constexpr = tile // size
    at = numbers + tl.program_id(0) // shares * 5
    start, count, seen, where, before = (
        tl.load(at),
        tl.load(at + 1),
        tl.load(at + 2),
        tl.load(at + 3),
        tl.load(at + 4),
    )
    group: tl.constexpr = heads // kv_heads
    begin = tl.program_id(0) % shares * size
    m = begin + tl.arange(0, size)
    head = tl.program_id(1) * group + m % group
    places, kept = (start + m // group) * heads + head, (before + m // group) * heads + head
    last = tl.where(begin // group < count, seen + tl.minimum(count - 1, (begin + size - 1) // group), 0)
    return places, m // group < count, seen + m // group, last, where, kept


@part
def row_of(rows: tl.tensor, where: tl.tensor, t: tl.tensor, last: tl.tensor, page_rows: tl.constexpr) -> tl.tensor:
    """Return the cache's rows of places in a context, int64."""
    page = tl.load(rows + where + t // page_rows, t < last, 0).to(tl.int64)
    return page * page_rows + t % page_rows


@part
def load_queries(
    q: tl.tensor, places: tl.tensor, own: tl.tensor, width: tl.constexpr, wide: tl.constexpr
) -> tl.tensor:
    j = tl.arange(0, wide)
    return tl.load(q + places[:, None] * width + j[None, :], own[:, None] & (j < width)[None, :], 0)


@part
def make_scores(
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
    head, j = tl.program_id(1).to(tl.int64), tl.arange(0, wide)
    at = (row[:, None] * kv_heads + head) * width + j[None, :]
    keys = tl.load(kept + at, seen[:, None] & (j < width)[None, :], 0)
    products = tl.dot(query, tl.trans(keys), out_dtype=tl.int32).to(tl.float32)
    return products * tl.load(kept_tops + head * cache_rows + row, seen, 0.0)[None, :] * sharp[:, None]


@part
def load_value_tops(
    kept_tops: tl.tensor, row: tl.tensor, seen: tl.tensor, cache_rows: tl.tensor, kv_heads: tl.constexpr
) -> tl.tensor:
    head = tl.program_id(1).to(tl.int64)
    return tl.load(kept_tops + (kv_heads + head) * cache_rows + row, seen, 0.0)[None, :]


@part
def load_values(
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
def make_weights(
    scores: tl.tensor, greatest: tl.tensor, shown: tl.tensor, table: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """Return what each score weighs, int32, and which scores are not numbers."""
    distance = greatest[:, None] - scores
    odd = shown & ((distance >= 0) == 0)
    steps = tl.where(distance >= 0, tl.minimum(distance, _LAST), 0.0).to(tl.int32)
    weights = tl.load(table + (steps & _STEP)) >> ((steps >> _OCTAVE) + _SPARE)
    return tl.where(shown, weights, 0), odd


@part
def reach_of(scaled: tl.tensor, odd: tl.tensor) -> tl.tensor:
    """Return the bits of each row's greatest weighted top; NaN's where a score was none."""
    bits = tl.where(odd, NAN_BITS, magnitude_bits(scaled))
    return tl.max(bits, 1)


@part
def digits_of(scaled: tl.tensor, per_level: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    levels = scaled * per_level[:, None]
    whole = tl.where(levels == levels, levels, 0.0).to(tl.int32)
    return ((whole >> 14) & 127).to(tl.int8), ((whole >> 7) & 127).to(tl.int8), (whole & 127).to(tl.int8)


@part
def join_digits(high: tl.tensor, middle: tl.tensor, low: tl.tensor) -> tl.tensor:
    return (high.to(tl.int64) * 128 + middle.to(tl.int64)) * 128 + low.to(tl.int64)


@part
def decode(bits: tl.tensor) -> tl.tensor:
    return (bits ^ ((bits >> 31) & MAGNITUDE)).to(tl.float32, bitcast=True)


@part
def decode_top(bits: tl.tensor) -> tl.tensor:
    return tl.maximum(bits, LEAST_BITS).to(tl.float32, bitcast=True)
