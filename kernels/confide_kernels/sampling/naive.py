"""The definition in plain torch: each row by itself, so that a neighbour never changes the draw.

Weights are whole numbers on a fixed grid, so their sums are exact in any order; every tie goes to the lower id.
Each is a table's 2^(-i/1024) times a cubic for what lies between, element by element: softmax and exp would leave
the last bits to the processor's vectors.
"""

import math
from decimal import Context, Decimal
from fractions import Fraction
from functools import cache
from typing import Final

import torch
from torch import Tensor

# What the likeliest token weighs; what would weigh less than half of 1 is never drawn. 2^18 tokens stay under 2^63.
GRID_BITS: Final = 44
UNIFORM_BITS: Final = 53
_STEPS: Final = 1024
_LAST: Final = (GRID_BITS + 1) * _STEPS
_PER_NAT: Final = 1.4426950408889634 * _STEPS
_SLOPE: Final = -0.6931471805599453 / _STEPS
_CUBIC: Final = (_SLOPE * _SLOPE * _SLOPE / 6, _SLOPE * _SLOPE / 2, _SLOPE)
_DECIMAL: Final = Context(prec=40)


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
    bits = (allowed[:, None] >> torch.arange(8, dtype=torch.uint8, device=allowed.device)) & 1
    keep = torch.zeros_like(logits, dtype=torch.bool)
    count = min(len(keep), bits.numel())
    keep[:count] = bits.flatten()[:count].bool()
    return torch.where(keep, logits, -torch.inf)


def log_probabilities(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return one row's natural log-probabilities, float64, and the ids of the `count` greatest, best first."""
    wide = logits.double()
    total = Decimal(int(_weigh(wide, 1.0).sum())) / (1 << GRID_BITS)
    return wide - wide.max() - float(total.ln(_DECIMAL)), greatest(logits, count)


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
    weights = _weigh(logits.double(), temperature)
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


def _weigh(logits: Tensor, temperature: float) -> Tensor:
    """Return 2^GRID_BITS * exp((logit - greatest) / temperature) of one float64 row, rounded, int64. Exact."""
    distance = torch.sub(logits.max(), logits).div_(temperature).mul_(_PER_NAT).clamp_max_(_LAST)
    steps = distance.floor()
    rest = distance.sub_(steps)
    cube, square, slope = _CUBIC
    between = torch.mul(rest, cube).add_(square).mul_(rest).add_(slope).mul_(rest).add_(1.0)
    return _table(logits.device).index_select(0, steps.long()).mul_(between).round_().long()


@cache
def _table(device: torch.device) -> Tensor:
    """Return 2^(GRID_BITS - i / _STEPS), float64, and 0 at the end; correctly rounded, whatever the C library."""
    octave = [float(_DECIMAL.power(2, Decimal(-i) / _STEPS)) for i in range(_STEPS)]
    values = [math.ldexp(each, GRID_BITS - down) for down in range(GRID_BITS + 1) for each in octave]
    return torch.tensor([*values, 0.0], dtype=torch.float64, device=device)
