"""Attention in floats for GPUs: softmax as it goes along, a context cut into splits that are put together after."""

import math
from typing import Final, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.attention.spans import Spans
from confide_kernels.attention.tiles import Placed, Tiles, place, split_for
from confide_kernels.attention.triton_parts import load_queries, load_tile, row_of
from confide_kernels.gpu import block_of, capability_of, kernel_of_any

_LEAST_SPLIT: Final = 64
_HOPPER: Final = 9


class Plan(NamedTuple):
    """Rows of queries and of context that a program takes at once, and its warps."""

    size: int
    block: int
    warps: int


def plan_for(size: int, wide: int, dtype: torch.dtype, capability: int) -> Plan:
    """Choose what spills nothing, and fits the shared memory of GPUs of this major capability.

    size: rows of a tile; wide: of heads, up to 256.
    """
    if dtype.itemsize > 2:  # without tensor cores
        return Plan(16, 32 if wide <= 64 else 16, 4)
    if wide > 128:
        return Plan(min(size, 32), 32, 4)
    # Products of 64 rows leave their operands in shared memory there, elsewhere in registers.
    return Plan(min(size, 64 if capability == _HOPPER or wide <= 64 else 32), 64, 4)


def attend(q: Tensor, keys: Tensor, values: Tensor, spans: Spans | Placed, split: int | None = None) -> Tensor:
    """As the definition. `spans` may have been placed before; `split` rows of context go to a program."""
    heads, kv_heads = q.shape[1], keys.shape[1]
    if not (keys.is_contiguous() and values.is_contiguous()):
        raise ValueError("the cache must be contiguous")
    if isinstance(spans, Spans):
        spans = place(spans, heads // kv_heads, q.device)
    q, out = q.contiguous(), torch.empty_like(q, memory_format=torch.contiguous_format)
    for tiles, own in ((spans.few, split), (spans.many, spans.many.longest)):
        if len(tiles.numbers):
            own = own or split_for(tiles.longest, len(tiles.numbers) * kv_heads, _LEAST_SPLIT)
            _attend_tiles(q, keys, values, spans, tiles, out, max(own, _LEAST_SPLIT))
    return out


def _attend_tiles(
    q: Tensor, keys: Tensor, values: Tensor, spans: Placed, tiles: Tiles, out: Tensor, split: int
) -> None:
    n, (_, heads, width) = tiles.rows, q.shape
    kv_heads, splits = keys.shape[1], -(-tiles.longest // split)
    wide = block_of(width, 32)
    plan = plan_for(tiles.size, wide, q.dtype, capability_of(q.device))
    grid = tiles.programs(plan.size), kv_heads, splits
    shape = {
        "heads": heads,
        "kv_heads": kv_heads,
        "width": width,
        "tile": tiles.size,
        "size": plan.size,
        "wide": wide,
    }
    parts = out if splits == 1 else torch.empty(splits, n, heads, width, device=q.device)
    peaks, totals = (torch.empty(splits, n, heads, device=q.device) for _ in range(2))
    _attend[grid](
        q,
        keys,
        values,
        tiles.numbers,
        spans.rows,
        parts,
        peaks,
        totals,
        n * heads,
        split,
        # Weights are powers of two.
        scale=math.log2(math.e) / math.sqrt(width),
        whole=splits == 1,
        block=plan.block,
        page_rows=spans.page_rows,
        num_warps=plan.warps,
        num_stages=2,
        **shape,
    )
    if splits > 1:
        _merge[grid[:2]](tiles.numbers, parts, peaks, totals, out, n * heads, splits, **shape)


@kernel_of_any("count", "split")
def _attend(
    q: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    numbers: tl.tensor,
    rows: tl.tensor,
    parts: tl.tensor,
    peaks: tl.tensor,
    totals: tl.tensor,
    count: tl.tensor,
    split: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    tile: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
    scale: tl.constexpr,
    whole: tl.constexpr,
    block: tl.constexpr,
    page_rows: tl.constexpr,
) -> None:
    places, own, sees, last, where, among = load_tile(numbers, heads, kv_heads, tile, size)
    query, j = load_queries(q, places, own, width, wide), tl.arange(0, wide)
    begin = tl.program_id(2) * split
    peak, total = tl.full([size], float("-inf"), tl.float32), tl.zeros([size], tl.float32)
    made = tl.zeros([size, wide], tl.float32)
    for first in range(begin, tl.minimum(begin + split, last), block):
        t = first + tl.arange(0, block)
        row = row_of(rows, where, t, last, page_rows)
        at = (row[:, None] * kv_heads + tl.program_id(1)) * width + j[None, :]
        there = (t < last)[:, None] & (j < width)[None, :]
        key = tl.load(keys + at, there, 0.0)
        scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        shown = own[:, None] & (t[None, :] < sees[:, None])
        scores = tl.where(shown, scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores - base[:, None])
        fading = tl.exp2(peak - base)
        total = total * fading + tl.sum(weights, 1)
        value = tl.load(values + at, there, 0.0)
        made = tl.dot(weights.to(value.dtype), value, made * fading[:, None], input_precision="ieee")
        peak = higher
    if whole:
        made = made / total[:, None]
    else:
        places = tl.program_id(2).to(tl.int64) * count + among
        tl.store(peaks + places, peak, own)
        tl.store(totals + places, total, own)
    at = places[:, None] * width + j[None, :]
    tl.store(parts + at, made.to(parts.dtype.element_ty), own[:, None] & (j < width)[None, :])


@kernel_of_any("count", "splits")
def _merge(
    numbers: tl.tensor,
    parts: tl.tensor,
    peaks: tl.tensor,
    totals: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    splits: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    tile: tl.constexpr,
    size: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    places, own, _, _, _, among = load_tile(numbers, heads, kv_heads, tile, size)
    j = tl.arange(0, wide)
    shown = own[:, None] & (j < width)[None, :]
    peak, total = tl.full([size], float("-inf"), tl.float32), tl.zeros([size], tl.float32)
    made = tl.zeros([size, wide], tl.float32)
    for each in range(splits):
        at = tl.cast(each, tl.int64) * count + among
        its_peak = tl.load(peaks + at, own, 0.0)
        higher = tl.maximum(peak, its_peak)
        base = tl.where(higher == float("-inf"), 0.0, higher)
        fading, gain = tl.exp2(peak - base), tl.exp2(its_peak - base)
        total = total * fading + tl.load(totals + at, own, 1.0) * gain
        part = tl.load(parts + at[:, None] * width + j[None, :], shown, 0.0)
        made = made * fading[:, None] + part * gain[:, None]
        peak = higher
    made = (made / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + places[:, None] * width + j[None, :], made, shown)
