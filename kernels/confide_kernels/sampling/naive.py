"""The definition in plain torch: each row by itself, so that a neighbour never changes the draw.

Weights are whole numbers on a fixed grid, so their sums are exact in any order; every tie goes to the lower id.
"""

import math
from fractions import Fraction
from typing import Final

import torch
from torch import Tensor

GRID: Final = 1 << 48  # what a probability of 1 weighs; less than one part of it is never drawn
UNIFORM_BITS: Final = 53


def sample(
    logits: Tensor, temperatures: Tensor, top_ks: Tensor, top_ps: Tensor, min_ps: Tensor, uniforms: Tensor
) -> Tensor:
    """Return one id per row: the greatest logit at temperature 0, else a draw by inverse CDF in the order of ids.

    logits: [n, vocabulary], -inf for what may not come; temperatures >= 0, top_ps in (0, 1], min_ps in [0, 1],
    uniforms in [0, 1): [n] float64; top_ks: [n] int64, 0 for no limit. Returns [n].
    Drawn from are, in this order: the top_k greatest; of those what has at least min_p of the greatest one's
    probability; of those the fewest, greatest first, that reach top_p of what is left.
    """
    rows = zip(*(x.tolist() for x in (temperatures, top_ks, top_ps, min_ps, uniforms)), strict=True)
    drawn = (_draw(row, *settings) for row, settings in zip(logits, rows, strict=True))
    return torch.tensor(list(drawn), dtype=torch.int64)


def adjust(logits: Tensor, ids: Tensor, repetition: Tensor, shift: Tensor) -> Tensor:
    """Return one row with some logits changed: made less likely by the factor `repetition`, then shifted.

    logits: [vocabulary]; ids: [n] int64, each once; repetition, shift: [n] float64. A positive logit is divided by
    the factor, a negative one multiplied.
    """
    old = logits[ids].double()
    new = torch.where(old > 0, old / repetition, old * repetition) + shift
    return logits.index_copy(0, ids, new.to(logits.dtype))


def forbid(logits: Tensor, allowed: Tensor) -> Tensor:
    """Return one row with -inf wherever a bit is 0. allowed: uint8, the lowest bit first; what it lacks is 0."""
    bits = (allowed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    keep = torch.zeros_like(logits, dtype=torch.bool)
    count = min(len(keep), bits.numel())
    keep[:count] = bits.flatten()[:count].bool()
    return torch.where(keep, logits, -torch.inf)


def log_probabilities(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return one row's natural log-probabilities, float64, and the ids of the `count` greatest, best first."""
    return torch.log_softmax(logits.double(), -1), greatest(logits, count)


def greatest(logits: Tensor, count: int) -> Tensor:
    """Return the ids of the `count` greatest of one row, best first."""
    count = min(count, len(logits))
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    # topk gives the right values, but of equal ones any: its least value is a bound, a stable sort decides.
    candidates = (logits >= logits.topk(count).values[-1]).nonzero().flatten()
    order = logits[candidates].sort(descending=True, stable=True).indices
    return candidates[order[:count]]


def _draw(logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float) -> int:
    if temperature == 0:
        return int(logits.argmax())
    wide = logits.double()
    # A softmax over one row is one thread's work, so its bits do not depend on how many there are.
    weights = (torch.softmax((wide - wide.max()) / temperature, -1) * GRID).long()
    if 0 < top_k < len(weights):
        kept = torch.zeros_like(weights)
        ids = greatest(logits, top_k)
        weights = kept.index_copy(0, ids, weights[ids])
    if min_p > 0:
        bound = math.ceil(Fraction(min_p) * int(weights.max()))
        weights = torch.where(weights >= bound, weights, 0)
    if top_p < 1:
        weights = _nucleus(logits, weights, top_p)
    cumulative = weights.cumsum(0)
    target = int(uniform * (1 << UNIFORM_BITS)) * int(cumulative[-1]) >> UNIFORM_BITS
    return int(torch.searchsorted(cumulative, target, right=True))


def _nucleus(logits: Tensor, weights: Tensor, top_p: float) -> Tensor:
    total = int(weights.sum())
    needed = max(1, math.ceil(Fraction(top_p) * total))
    # All that weigh no more than this weigh at most total - needed together: no need to sort them.
    candidates = (weights > (total - needed) // len(weights)).nonzero().flatten()
    order = logits[candidates].sort(descending=True, stable=True).indices
    ids = candidates[order]
    ids = ids[: int((weights[ids].cumsum(0) < needed).sum()) + 1]
    return torch.zeros_like(weights).index_copy(0, ids, weights[ids])
