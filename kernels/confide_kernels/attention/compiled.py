"""The same, for processors: spans of few rows in one pass, longer ones with products of matrices.

Here the digits of a weight need not be told apart: in float64, products of 21 bits with 7 add up exactly as well.
"""

from functools import cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from confide_kernels.attention import exact
from confide_kernels.attention.spans import Span, Spans
from confide_kernels.gemm.naive import multiply_int8
from confide_kernels.jit import F32, F64, I8, I16, I32, I64, U8, empty, kernel, part
from confide_kernels.quant.compiled import MIDDLE, empty_rows, round_row
from confide_kernels.quant.naive import LEAST, Rows
from confide_kernels.rope import Cache

# From so many rows on, products of matrices are worth their calls.
_MANY: Final = 8
_BELOW: Final = np.int32(-(2**31))
_SIGN, _MAGNITUDE = np.int32(31), np.int32(0x7FFFFFFF)
_STEP, _OCTAVE, _SPARE = np.int32(exact.STEPS - 1), np.int32(exact.STEPS.bit_length() - 1), np.int32(exact.SPARE)
_NONE, _END, _LAST = np.float32(0), np.float32(exact.LAST), np.int32(exact.LAST)
_LEAST: Final = np.float32(LEAST).view(np.int32)
_MOST: Final = np.float32(exact.MOST.item())
_UNIT: Final = exact.UNIT.item()
_HIGH, _MIDDLE, _DIGIT, _BASE = np.int32(14), np.int32(7), np.int32(127), np.float64(128)


def attend_int8(q: Tensor, q_tops: Tensor, cache: Cache, spans: Spans) -> Rows:
    n, heads, head_dim = q.shape
    sharp = q_tops * exact.sharpness(head_dim)
    out, floats = empty((n, heads * head_dim), np.float32)
    for span in spans.parts:
        if span.queries >= _MANY:
            _attend_many(q, sharp, cache, span, floats)
    rows, levels, tops = empty_rows(n, heads * head_dim)
    _attend_few(
        q.numpy(),
        sharp.numpy(),
        cache.data.numpy(),
        cache.tops.numpy(),
        spans.numbers,
        spans.rows.astype(np.int64, copy=False),
        _table(),
        out,
        levels,
        tops,
    )
    return rows


def _attend_many(q: Tensor, sharp: Tensor, cache: Cache, span: Span, out: Tensor) -> None:
    _, heads, head_dim = q.shape
    start, count, context, rows = span
    kv_heads = cache.data.shape[2]
    group = heads // kv_heads
    if isinstance(rows, slice) and not 0 <= rows.start <= rows.stop <= cache.data.shape[1]:
        raise IndexError("a row of the context is outside the cache")
    (keys, values), tops = cache.data[:, rows], cache.tops[..., rows].contiguous().numpy()
    for first, last in exact.pieces(count, context, group):
        part, seen, size = slice(start + first, start + last), context - count + last, (last - first) * group
        digits, units = torch.empty(3, size, seen, dtype=torch.int8), torch.empty(size, dtype=torch.float64)
        for head in range(kv_heads):
            levels = q[part, head * group : (head + 1) * group].reshape(size, head_dim)
            scores = multiply_int8(levels, keys[:seen, head].t())
            own = sharp[part].numpy(), tops, head
            _weigh_many(scores.numpy(), *own, _table(), digits.numpy(), units.numpy())
            sums = multiply_int8(digits.view(-1, seen), values[:seen, head])
            _join_many(sums.numpy(), units.numpy(), head, out[part].numpy())


@cache
def _table() -> I32:
    return exact.table(torch.device("cpu")).numpy()


@part
def _weigh(scores: F32, value_tops: F32, table: I32, levels: I32) -> float:
    """Write what each score weighs, in levels of 21 bits; return what a level is. Consumes the scores.

    Bits are compared as integers, which order like the numbers. Where one is not a number, nor is the unit.
    """
    bits = scores.view(np.int32)
    most = _BELOW
    for t in range(len(scores)):
        most = max(most, np.int32(bits[t] ^ ((bits[t] >> _SIGN) & _MAGNITUDE)))
    greatest = np.int32(most ^ ((most >> _SIGN) & _MAGNITUDE)).view(np.float32)
    total, none = np.int64(0), np.int32(0)
    for t in range(len(scores)):
        distance = greatest - scores[t]
        none = np.int32(none | (not distance >= _NONE))
        step = np.int32(distance) if distance < _END else _LAST
        weight = np.int32(table[step & _STEP] >> ((step >> _OCTAVE) + _SPARE))
        total += np.int64(weight)
        scores[t] = np.float32(weight) * value_tops[t]
    most = _LEAST
    for t in range(len(scores)):
        most = max(most, np.int32(bits[t] & _MAGNITUDE))
    top = np.int32(most).view(np.float32)
    per_level = _MOST / top
    for t in range(len(scores)):
        levels[t] = np.int32(scores[t] * per_level)
    return np.nan if none else float(np.float64(top) * _UNIT / np.float64(total))


@kernel(
    "int32[:, ::1]",
    "float32[:, ::1]",
    "float32[:, :, ::1]",
    "int64",
    "int32[::1]",
    "int8[:, :, ::1]",
    "float64[::1]",
)
def _weigh_many(products: I32, sharp: F32, tops: F32, head: int, table: I32, digits: I8, units: F64) -> None:
    """Rows of `products` are of queries times the query heads of key head `head`; the last sees all of its row."""
    size, seen = products.shape
    count, group = len(sharp), size // len(sharp)
    scores, levels = np.empty(seen, np.float32), np.empty(seen, np.int32)
    for i in range(size):
        sharpness, own = sharp[i // group, head * group + i % group], seen - count + 1 + i // group
        for t in range(own):
            scores[t] = np.float32(products[i, t]) * tops[0, head, t] * sharpness
        units[i] = _weigh(scores[:own], tops[1, head, :own], table, levels)
        for t in range(own):
            digits[0, i, t] = np.int8(levels[t] >> _HIGH)
            digits[1, i, t] = np.int8((levels[t] >> _MIDDLE) & _DIGIT)
            digits[2, i, t] = np.int8(levels[t] & _DIGIT)
        digits[:, i, own:] = 0


@kernel("int32[:, ::1]", "float64[::1]", "int64", "float32[:, ::1]")
def _join_many(sums: I32, units: F64, head: int, out: F32) -> None:
    size, width = len(units), sums.shape[1]
    group = size // len(out)
    for i in range(size):
        row = out[i // group, (head * group + i % group) * width :]
        for j in range(width):
            high, middle, low = sums[i, j], sums[size + i, j], sums[2 * size + i, j]
            whole = (np.float64(high) * _BASE + np.float64(middle)) * _BASE + np.float64(low)
            row[j] = np.float32(whole * units[i])


@part
def _multiply(query: I16, keys: I8, rows: I64, products: I32) -> None:
    """Write what every head's query makes of each row, which is read once."""
    heads, width = query.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    for t in range(len(rows)):
        row = rows[t]
        for kv_head in range(kv_heads):
            for head in range(kv_head * group, (kv_head + 1) * group):
                product = np.int32(0)
                for j in range(width):
                    product = np.int32(product + np.int32(query[head, j]) * np.int32(keys[row, kv_head, j]))
                products[head, t] = product


@part
def _sum(levels: I32, values: I8, rows: I64, value: F64, sums: F64) -> None:
    heads, width = sums.shape
    kv_heads = values.shape[1]
    group = heads // kv_heads
    sums[:] = 0.0
    for t in range(len(rows)):
        row = rows[t]
        for kv_head in range(kv_heads):
            for j in range(width):
                value[j] = np.float64(values[row, kv_head, j])
            for head in range(kv_head * group, (kv_head + 1) * group):
                level = np.float64(levels[head, t])
                for j in range(width):
                    sums[head, j] += level * value[j]


@kernel(
    "int8[:, :, ::1]",
    "float32[:, ::1]",
    "int8[:, :, :, ::1]",
    "float32[:, :, ::1]",
    "int64[:, ::1]",
    "int64[::1]",
    "int32[::1]",
    "float32[:, ::1]",
    "uint8[:, ::1]",
    "float32[:, ::1]",
)
def _attend_few(
    q: I8,
    sharp: F32,
    cache: I8,
    cache_tops: F32,
    spans: I64,
    places: I64,
    table: I32,
    out: F32,
    out_levels: U8,
    out_tops: F32,
) -> None:
    """Attend from the spans of few rows, then quantise all of `out`."""
    _, heads, width = q.shape
    kv_heads = cache.shape[2]
    group = heads // kv_heads
    if len(places) and not 0 <= places.min() <= places.max() < cache.shape[1]:
        raise IndexError("a row of the context is outside the cache")
    longest = 0
    for span in range(len(spans)):
        longest = max(longest, spans[span, 2])
    query, products = np.empty((heads, width), np.int16), np.empty((heads, longest), np.int32)
    tops, scores = np.empty((2, longest), np.float32), np.empty(longest, np.float32)
    levels, units = np.empty((heads, longest), np.int32), np.empty(heads)
    value, sums = np.empty(width), np.empty((heads, width))
    for span in range(len(spans)):
        start, count, context, first = spans[span]
        if count >= _MANY:
            continue
        for i in range(start, start + count):
            seen = context - count + i - start + 1
            rows = places[first : first + seen]
            query[:] = q[i]
            _multiply(query, cache[0], rows, products)
            for head in range(heads):
                kv_head = head // group
                if head % group == 0:
                    for t in range(seen):
                        tops[0, t] = cache_tops[0, kv_head, rows[t]]
                        tops[1, t] = cache_tops[1, kv_head, rows[t]]
                for t in range(seen):
                    scores[t] = np.float32(products[head, t]) * tops[0, t] * sharp[i, head]
                units[head] = _weigh(scores[:seen], tops[1, :seen], table, levels[head])
            _sum(levels, cache[1], rows, value, sums)
            for head in range(heads):
                for j in range(width):
                    out[i, head * width + j] = np.float32(sums[head, j] * units[head])
    for i in range(len(out)):
        out_tops[i, 0] = round_row(out[i], out_levels[i], MIDDLE)
