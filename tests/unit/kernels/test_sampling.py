"""Sampling against a full sort, and against the distribution that it claims to draw from."""

import hashlib

import pytest
import torch
from confide_kernels.sampling import adjust, forbid, log_probabilities, sample
from confide_kernels.sampling.naive import GRID_BITS, _weigh


def draw(
    logits: torch.Tensor, temperature: float, top_p: float, uniform: float, *, top_k: int = 0, min_p: float = 0
) -> int:
    t, p, m, u = (torch.tensor([v], dtype=torch.float64) for v in (temperature, top_p, min_p, uniform))
    return int(sample(logits[None], t, torch.tensor([top_k]), p, m, u))


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


def shares(logits: torch.Tensor, top_p: float = 1, steps: int = 500, **settings) -> dict[int, float]:
    """How often each token comes up over an even grid of uniforms."""
    drawn = [draw(logits, 1, top_p, (n + 0.5) / steps, **settings) for n in range(steps)]
    return {token: drawn.count(token) / steps for token in set(drawn)}


def test_top_k_keeps_the_greatest_and_ties_go_to_the_lower_id() -> None:
    """Exactly k survive, whatever is equal."""
    logits = torch.tensor([1.0, 5.0, 3.0, 3.0, 5.0, 3.0])
    assert shares(logits, top_k=3).keys() == {1, 2, 4}
    assert shares(logits, top_k=1).keys() == {1}
    assert shares(logits, top_k=6) == shares(logits, top_k=0) == shares(logits, top_k=99)


def test_min_p_counts_from_the_greatest() -> None:
    """What has less than that part of the greatest one's probability goes."""
    logits = torch.tensor([0.5, 0.25, 0.125, 0.0625]).log()
    assert shares(logits, min_p=0.2).keys() == {0, 1, 2}
    assert shares(logits, min_p=1.0).keys() == {0}
    assert shares(torch.zeros(4), min_p=1.0).keys() == {0, 1, 2, 3}


def test_top_p_counts_what_top_k_left() -> None:
    """The nucleus is of the renormalised rest."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    found = shares(logits, top_k=2, top_p=0.55)
    assert found.keys() == {0}
    assert shares(logits, top_k=2, top_p=0.6).keys() == {0, 1}


def test_what_may_not_come_never_does() -> None:
    """A bit of 0, or no bit, is a probability of 0; at temperature 0 too."""
    logits = torch.randn(20)
    masked = forbid(logits, torch.tensor([0b10010, 0b1], dtype=torch.uint8))
    assert shares(masked).keys() <= {1, 4, 8}
    assert draw(masked, 0, 1, 0.5) in {1, 4, 8}
    assert torch.equal(masked[[1, 4, 8]], logits[[1, 4, 8]])


def test_adjustments_are_those_of_the_named_ids() -> None:
    """A positive logit is divided, a negative one multiplied, then the shift is added; others stay bit for bit."""
    logits = torch.tensor([2.0, -2.0, 1.0, 0.5])
    two, zero = torch.tensor([2.0, 2.0, 1.0]).double(), torch.tensor([0.0, 0.5, -3.0]).double()
    assert adjust(logits, torch.tensor([0, 1, 2]), two, zero).tolist() == [1.0, -3.5, -2.0, 0.5]


def test_log_probabilities_are_normal_and_ordered() -> None:
    """They sum to one, and of equal ones the lower id comes first."""
    values, best = log_probabilities(torch.tensor([1.0, 2.0, 2.0, 0.0]), 3)
    assert best.tolist() == [1, 2, 0]
    assert abs(float(values.exp().sum()) - 1) < 1e-12
    assert log_probabilities(torch.zeros(3), 0)[1].tolist() == []


def test_bits_are_those_of_no_processor() -> None:
    """Weights and log-probabilities have these bits wherever they are computed, and are what they say."""
    logits = torch.arange(-5000, 3000).float() / 97
    values, _ = log_probabilities(logits, 0)
    assert (values - torch.log_softmax(logits.double(), -1)).abs().max() < 1e-11
    weights = _weigh(logits.double(), 0.7)
    assert int(weights.max()) == 1 << GRID_BITS
    assert (weights.double() / weights.sum() - torch.softmax(logits.double() / 0.7, -1)).abs().max() < 1e-12
    found = [hashlib.sha256(x.numpy().tobytes()).hexdigest()[:16] for x in (values, weights)]
    assert found == ["dc5877b3aefb127b", "0a0ba57e722d6355"]


def test_threads_change_no_bit() -> None:
    """One thread or two: the same draws and the same log-probabilities."""
    torch.manual_seed(3)
    logits, before = torch.randn(6, 150_000), torch.get_num_threads()
    settings = [torch.full((6,), x, dtype=torch.float64) for x in (0.8, 0.95, 0.001)]
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            uniforms = torch.linspace(0, 0.999, 6, dtype=torch.float64)
            ids = sample(logits, settings[0], torch.full((6,), 500), *settings[1:], uniforms)
            results.append((ids, log_probabilities(logits[0], 5)[0]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_a_row_does_not_see_its_neighbours() -> None:
    """A row draws the same beside others as alone."""
    logits = torch.randn(4, 1000)
    settings = torch.tensor([[0.7, 0.9, 0.3], [0, 1, 0.1], [1.5, 0.4, 0.9], [1, 1, 0.5]], dtype=torch.float64)
    temperatures, top_ps, uniforms = settings.T
    top_ks, min_ps = torch.tensor([0, 5, 40, 7]), torch.tensor([0, 0.1, 0.02, 0]).double()
    together = sample(logits, temperatures, top_ks, top_ps, min_ps, uniforms)
    alone = [draw(logits[i], *settings[i].tolist(), top_k=int(top_ks[i]), min_p=float(min_ps[i])) for i in range(4)]
    assert together.tolist() == alone
