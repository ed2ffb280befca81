"""Attention whose sums are all of integers, so that no order of summing rounds (see `confide_kernels`).

Scores are int32 sums of int8 products. Weights are 2^(24 - i/512), rounded down, i being the distance from the
row's greatest score. With each value row's own scale they are cut to 21 bits, three digits of 7, so that they too
meet the int8 values in int32.
"""

import math
from collections.abc import Iterator
from decimal import Context, Decimal
from functools import cache
from typing import Final

import torch
from torch import Tensor

from confide_kernels.attention.spans import Spans
from confide_kernels.gemm.naive import multiply_int8
from confide_kernels.quant.naive import LEAST, LEVELS, Rows, quantise
from confide_kernels.rope import Cache

STEPS: Final = 512
# Weights have 24 bits; from here on they are none.
LAST: Final = 25 * STEPS
_BITS: Final = 30
SPARE: Final = _BITS - 24
_DECIMAL: Final = Context(prec=40)
# Two under what three digits of 7 bits hold: a product with a quotient may come out a little over its bound.
MOST: Final = torch.tensor(2.0**21 - 2)
UNIT: Final = torch.tensor(1 / (LEVELS * (2.0**21 - 2)), dtype=torch.float64)
_SHIFTS: Final = torch.tensor([14, 7, 0], dtype=torch.int32).view(3, 1, 1)
_DIGIT: Final = torch.tensor(127, dtype=torch.int32)
_BASE: Final = torch.tensor(128.0, dtype=torch.float64)
# More scores than this at once would leave the processor's caches.
_SCORES: Final = 1 << 16


def attend_int8(q: Tensor, q_tops: Tensor, cache: Cache, spans: Spans) -> Rows:
    """Return what each row attends to, [n, heads * head_dim], quantised. Exact for up to 2^17 rows of context.

    q: [n, heads, head_dim] int8 without -128, q_tops: [n, heads] float32, what 127 levels stand for.
    """
    n, heads, head_dim = q.shape
    (keys, values), (key_tops, value_tops) = cache.data, cache.tops
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    sharp = torch.mul(q_tops, sharpness(head_dim)).view(n, kv_heads, group, 1)
    q = q.view(n, kv_heads, group, head_dim)
    out = torch.empty(n, kv_heads, group, head_dim, device=q.device)
    for start, count, context, rows in spans.parts:
        for first, last in pieces(count, context, group):
            part, seen = slice(start + first, start + last), context - count + last
            tops = key_tops[:, rows], value_tops[:, rows]
            _attend_part(q[part], sharp[part], keys[rows], values[rows], *tops, seen, out[part])
    return quantise(out.view(n, heads * head_dim))


def pieces(count: int, context: int, heads: int) -> Iterator[tuple[int, int]]:
    """Cut a span's queries so that a key head's scores fit into the caches."""
    step = max(1, _SCORES // (context * heads))
    for first in range(0, count, step):
        yield first, min(first + step, count)


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
        levels = q[:, head].reshape(count * group, head_dim)
        scores = multiply_int8(levels, keys[:seen, head].t()).view(count, group, seen)
        scores = torch.mul(scores, key_tops[head, :seen]).mul_(sharp[:, head])
        weights, total = _weigh(scores.masked_fill_(hidden, -math.inf))
        weights = weights.mul_(value_tops[head, :seen]).masked_fill_(hidden, 0)
        digits, unit = _split(weights.view(1, -1, seen))
        sums = multiply_int8(digits.view(-1, seen), values[:seen, head]).view(3, count, group, head_dim)
        torch.mul(_join(sums), unit.view(count, group, 1).div_(total), out=out[:, head])


def _weigh(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole-number weights of the scores (1/512 of an octave each), and their exact sum in float64.

    Consumes the scores. Where one is not a number, nor is the sum.
    """
    distance = torch.sub(scores.amax(-1, keepdim=True), scores, out=scores).clamp_max_(LAST)
    steps = distance.to(torch.int32).clamp_min_(0)
    octave = table(scores.device).index_select(0, steps.remainder(STEPS).view(-1)).view(scores.shape)
    weights = (octave >> (steps // STEPS).add_(SPARE)).float()
    # Not a number where a score is none, else 0.
    none = distance.sum(-1, keepdim=True).mul_(0)
    return weights, weights.sum(-1, keepdim=True, dtype=torch.float64).add_(none)


def _split(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cut each row to 21 bits of its greatest; return the digits as int8, high first, and what a unit is, float64.

    weights: [n, heads, length] float32, consumed. Digits: [n, 3, heads, length]; units: [n, heads, 1].
    """
    tops = weights.abs().amax(-1, keepdim=True).clamp_min_(LEAST)
    levels = weights.mul_(torch.div(MOST, tops)).to(torch.int32)
    return (levels[:, None] >> _SHIFTS).bitwise_and_(_DIGIT).to(torch.int8), tops.double().mul_(UNIT)


def _join(sums: Tensor) -> Tensor:
    """Put sums over the three digits, [3, ...] int32, together in float64."""
    high, middle, low = sums.double().unbind()
    return high.mul_(_BASE).add_(middle).mul_(_BASE).add_(low)


@cache
def sharpness(head_dim: int) -> Tensor:
    """Return how many steps of the table a product of one level of a query and one of a key is, for tops of one."""
    return torch.tensor(STEPS * math.log2(math.e) / math.sqrt(head_dim) / LEVELS**2)


@cache
def table(device: torch.device) -> Tensor:
    """Return 2^(30 - i/512) for the steps of an octave, rounded down, [512] int32; shifted they are any other."""
    values = [int(_DECIMAL.power(2, _BITS - Decimal(i) / STEPS)) for i in range(STEPS)]
    return torch.tensor(values, dtype=torch.int32, device=device)
