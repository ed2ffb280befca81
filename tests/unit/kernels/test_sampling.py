"""Sampling against a full sort, and against the distribution that it claims to draw from."""

import pytest
import torch
from confide_kernels.sampling import sample


def draw(logits: torch.Tensor, temperature: float, top_p: float, uniform: float) -> int:
    row = (torch.tensor([value], dtype=torch.float64) for value in (temperature, top_p, uniform))
    return int(sample(logits[None], *row))


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> dict[int, float]:
    """By full sort: the fewest most probable tokens that reach top_p, with their share."""
    probabilities = torch.softmax(logits.double() / temperature, 0).tolist()
    kept: dict[int, float] = {}
    for token in sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i)):
        kept[token] = probabilities[token]
        if sum(kept.values()) >= top_p:
            break
    return {token: share / sum(kept.values()) for token, share in kept.items()}


def test_temperature_zero_is_greedy() -> None:
    """The greatest logit wins whatever the uniform."""
    logits = torch.tensor([0.0, 3.0, -1.0, 2.9])
    assert {draw(logits, 0, 0.1, u) for u in (0.0, 0.5, 0.999999)} == {1}


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_draws_cover_the_nucleus_in_proportion(temperature: float, top_p: float) -> None:
    """Over an even grid of uniforms each token of the nucleus comes up as often as its share says, others never."""
    torch.manual_seed(1)
    logits, steps = torch.randn(50) * 3, 1000
    expected = nucleus(logits, temperature, top_p)
    counts: dict[int, int] = {}
    for step in range(steps):
        token = draw(logits, temperature, top_p, (step + 0.5) / steps)
        counts[token] = counts.get(token, 0) + 1
    assert counts.keys() <= expected.keys()
    for token, share in expected.items():
        assert abs(counts.get(token, 0) / steps - share) <= 1.5 / steps


@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 1e6])
@pytest.mark.parametrize("top_p", [1e-12, 1.0])
@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_extremes_stay_in_the_vocabulary(temperature: float, top_p: float, uniform: float) -> None:
    """No corner of the parameters leaves the range of ids."""
    logits = torch.tensor([50.0, -50.0, 49.0, 3e38, -3e38])
    assert 0 <= draw(logits, temperature, top_p, uniform) < 5


def test_a_row_does_not_see_its_neighbours() -> None:
    """A row draws the same beside others as alone."""
    logits = torch.randn(4, 1000)
    settings = torch.tensor([[0.7, 0.9, 0.3], [0, 1, 0.1], [1.5, 0.4, 0.9], [1, 1, 0.5]], dtype=torch.float64)
    together = sample(logits, *settings.T)
    assert together.tolist() == [draw(row, *each.tolist()) for row, each in zip(logits, settings, strict=True)]
