"""The definition in plain torch: each row by itself, so that a neighbour never changes the draw."""

import torch
from torch import Tensor


def sample(logits: Tensor, temperatures: Tensor, top_ps: Tensor, uniforms: Tensor) -> Tensor:
    """Return one id per row: the greatest logit at temperature 0, else a draw from the nucleus by inverse CDF.

    logits: [n, vocabulary]; temperatures >= 0, top_ps in (0, 1], uniforms in [0, 1): [n] float64. Returns [n].
    The nucleus is the fewest tokens, greatest first, whose probabilities reach top_p; ties go to the lower id.
    """
    rows = zip(logits, temperatures.tolist(), top_ps.tolist(), uniforms.tolist(), strict=True)
    return torch.tensor([_draw(*row) for row in rows])


def _draw(logits: Tensor, temperature: float, top_p: float, uniform: float) -> int:
    if temperature == 0:
        return int(logits.argmax())
    wide = logits.double()
    probabilities = torch.softmax((wide - wide.max()) / temperature, -1)
    if top_p == 1:
        return _invert(probabilities, uniform)
    # Tokens under this bound weigh less than 1 - top_p together, so the nucleus holds none of them: no full sort.
    candidates = (probabilities >= (1 - top_p) / len(probabilities)).nonzero().flatten()
    ordered, order = probabilities[candidates].sort(descending=True, stable=True)
    nucleus = int((ordered.cumsum(0) < top_p).sum()) + 1
    return int(candidates[order[_invert(ordered[:nucleus], uniform)]])


def _invert(probabilities: Tensor, uniform: float) -> int:
    cumulative = probabilities.cumsum(0)
    target = uniform * cumulative[-1]
    return min(int(torch.searchsorted(cumulative, target, right=True)), len(probabilities) - 1)
