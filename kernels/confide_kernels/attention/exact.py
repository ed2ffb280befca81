"""Attention whose sums are all of integers, so that no order of summing rounds (see `confide_kernels`).

Scores are int32 sums of int8 products. Weights are whole numbers from a table of 2^(24 - i/512), by the distance
from the row's greatest score. With each value row's own scale they are cut to 21 bits, three digits of 7, so that
they too meet the int8 values in int32.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Final

import torch
from torch import Tensor

from confide_kernels.attention.spans import Span
from confide_kernels.gemm import multiply_int8
from confide_kernels.quant import LEVELS

_STEPS: Final = 512
_LAST: Final = 25 * _STEPS
_LEAST: Final = 1e-30
# Two under what three digits of 7 bits hold: a product with a quotient may come out a little over its bound.
_MOST: Final = torch.tensor(2.0**21 - 2)
_UNIT: Final = torch.tensor(1 / (LEVELS * (2.0**21 - 2)), dtype=torch.float64)
_SHIFTS: Final = torch.tensor([14, 7, 0], dtype=torch.int32).view(3, 1, 1)
_DIGIT: Final = torch.tensor(127, dtype=torch.int32)
_BASE: Final = torch.tensor(128.0, dtype=torch.float64)
# More scores than this at once would leave the processor's caches.
_SCORES: Final = 1 << 16
# With more key heads, scores of all queries with all of them cost more than the calls that they save.
_FEW_HEADS: Final = 4


def attend_int8(
    q: Tensor,
    q_tops: Tensor,
    keys: Tensor,
    values: Tensor,
    key_tops: Tensor,
    value_tops: Tensor,
    spans: Sequence[Span],
) -> Tensor:
    """Return what each row attends to, [n, heads * head_dim] float32. Exact for up to 2^17 rows of context.

    q: [n, heads, head_dim] whole numbers in [-127, 127] of any dtype, q_tops: [n, heads]; keys, values: [rows,
    kv_heads, head_dim] int8, key_tops, value_tops: [kv_heads, rows] float32. Tops are what 127 levels stand for.
    """
    n, heads, head_dim = q.shape
    kv_heads = keys.shape[1]
    sharp = torch.mul(q_tops, _sharpness(head_dim)).view(n, kv_heads, -1, 1)
    q = q.view(n, kv_heads, -1, head_dim)
    out = torch.empty(n, kv_heads, heads // kv_heads, head_dim, device=q.device)
    if kv_heads <= _FEW_HEADS and (single := [span for span in spans if span.queries == 1]):
        starts = [span.start for span in single]
        together = starts[-1] - starts[0] == len(starts) - 1
        at = slice(starts[0], starts[-1] + 1) if together else torch.tensor(starts, device=q.device)
        out[at] = _attend_single(q[at], sharp[at], keys, values, key_tops, value_tops, single)
        spans = [span for span in spans if span.queries > 1]
    for start, count, context, rows in spans:
        step = max(1, _SCORES * kv_heads // (context * heads))
        for first in range(0, count, step):
            last = min(first + step, count)
            part, seen = slice(start + first, start + last), context - count + last
            tops = key_tops[:, rows], value_tops[:, rows]
            _attend_part(q[part], sharp[part], keys[rows], values[rows], *tops, seen, out[part])
    return out.view(n, heads * head_dim)


def _attend_part(
    q: Tensor,
    sharp: Tensor,
    keys: Tensor,
    values: Tensor,
    key_tops: Tensor,
    value_tops: Tensor,
    seen: int,
    out: Tensor,
) -> None:
    """Attend from rows of one sequence, of which the last sees the first `seen` rows, one key head at a time."""
    count, kv_heads, group, head_dim = q.shape
    hidden = torch.ones(count, seen, dtype=torch.bool, device=q.device).triu_(seen - count + 1)[:, None]
    for head in range(kv_heads):
        levels = q[:, head].to(torch.int8).reshape(count * group, head_dim)
        scores = multiply_int8(levels, keys[:seen, head].t()).view(count, group, seen)
        scores = torch.mul(scores, key_tops[head, :seen]).mul_(sharp[:, head])
        weights, total = _weigh(scores.masked_fill_(hidden, -math.inf))
        digits, unit = _split(weights.mul_(value_tops[head, :seen]).view(1, -1, seen))
        sums = multiply_int8(digits.view(-1, seen), values[:seen, head]).view(3, count, group, head_dim)
        torch.mul(_join(sums), unit.view(count, group, 1).div_(total), out=out[:, head])


def _attend_single(
    q: Tensor,
    sharp: Tensor,
    keys: Tensor,
    values: Tensor,
    key_tops: Tensor,
    value_tops: Tensor,
    spans: Sequence[Span],
) -> Tensor:
    """Attend from one row of each of many sequences, all heads at once; return q's shape, float32.

    Each query is laid out as wide as all key heads, zero but at its own, so that one product serves them all.
    """
    n, kv_heads, group, head_dim = q.shape
    heads, width = kv_heads * group, kv_heads * head_dim
    keys, values = keys.flatten(1), values.flatten(1)
    key_tops, value_tops = key_tops[:, None], value_tops[:, None]
    wide = torch.zeros(n, kv_heads, group, kv_heads, head_dim, dtype=torch.int8, device=q.device)
    wide.diagonal(dim1=1, dim2=3).copy_(q.permute(0, 2, 3, 1))
    rows = wide.view(n, heads, width)
    # Beyond a context's end the score stays at minus infinity, and its weight at zero.
    scores = q.new_full((n, kv_heads, group, max(span.context for span in spans)), -math.inf, dtype=torch.float32)
    for i, (_, _, context, where) in enumerate(spans):
        products = multiply_int8(rows[i], keys[where].t()).view(kv_heads, group, context)
        torch.mul(products, key_tops[..., where], out=scores[i, :, :, :context])
    weights, total = _weigh(scores.mul_(sharp))
    for i, (_, _, context, where) in enumerate(spans):
        weights[i, :, :, :context].mul_(value_tops[..., where])
    digits, unit = _split(weights.view(n, heads, -1))
    sums = torch.stack(
        [
            multiply_int8(digits[i, :, :, : span.context].flatten(0, 1), values[span.rows])
            for i, span in enumerate(spans)
        ]
    )
    own = sums.view(n, 3, kv_heads, group, kv_heads, head_dim).diagonal(dim1=2, dim2=4).movedim(1, 0)
    return _join(own).permute(0, 3, 1, 2).mul_(unit.view(n, kv_heads, group, 1).div_(total)).float()


def _weigh(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole-number weights of the scores (1/512 of an octave each), and their exact sum in float64.

    Consumes the scores. A score that is not a number weighs as the greatest; the row's values show it.
    """
    distance = torch.sub(scores.amax(-1, keepdim=True), scores, out=scores).clamp_max_(_LAST)
    index = distance.to(torch.int32).clamp_min_(0)
    weights = _table(scores.device).index_select(0, index.view(-1)).view(scores.shape)
    return weights, weights.sum(-1, keepdim=True, dtype=torch.float64)


def _split(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cut each row to 21 bits of its greatest; return the digits as int8, high first, and what a unit is, float64.

    weights: [n, heads, length] float32, consumed. Digits: [n, 3, heads, length]; units: [n, heads, 1].
    """
    tops = weights.amax(-1, keepdim=True).clamp_min_(_LEAST)
    levels = weights.mul_(torch.div(_MOST, tops)).to(torch.int32)
    return (levels[:, None] >> _SHIFTS).bitwise_and_(_DIGIT).to(torch.int8), tops.double().mul_(_UNIT)


def _join(sums: Tensor) -> Tensor:
    """Put sums over the three digits, [3, ...] int32, together in float64."""
    high, middle, low = sums.double().unbind()
    return high.mul_(_BASE).add_(middle).mul_(_BASE).add_(low)


@cache
def _sharpness(head_dim: int) -> Tensor:
    """Return how many steps of the table a product of one level of a query and one of a key is, for tops of one."""
    return torch.tensor(_STEPS * math.log2(math.e) / math.sqrt(head_dim) / LEVELS**2)


@cache
def _table(device: torch.device) -> Tensor:
    return torch.tensor([*(float(int(2 ** (24 - i / _STEPS))) for i in range(_LAST)), 0.0], device=device)
