"""Draws on GPUs are those of the definition, token for token."""

import math

import pytest
import torch
from confide_kernels.sampling import naive

from tests.unit.kernels.triton.shared import on_device, require_triton

require_triton()
from confide_kernels.sampling import triton as gpu  # noqa: E402

SIZE = 200


def draw(
    logits: torch.Tensor, settings: list[tuple[float, int, float, float, float]], chunk: int = 256
) -> list[int]:
    """Draw a token a row by both; assert that they agree. Settings: temperature, top_k, top_p, min_p, uniform."""
    temperatures, top_ks, top_ps, min_ps, uniforms = zip(*settings, strict=True)
    arguments = (
        torch.tensor(temperatures, dtype=torch.float64),
        torch.tensor(top_ks),
        *(torch.tensor(each, dtype=torch.float64) for each in (top_ps, min_ps, uniforms)),
    )
    expected = naive.sample(logits, *arguments).tolist()
    assert gpu.sample(on_device(logits), *arguments, chunk).tolist() == expected
    return expected


@pytest.mark.parametrize("size", [1, 127, SIZE])
def test_plain_draws(size: int) -> None:
    """Greedy rows, and draws at low and high temperature, beside one another."""
    settings = [(t, 0, 1.0, 0.0, u) for t in (0.0, 0.3, 1.0, 50.0) for u in (0.0, 0.4, 1 - 2**-53)]
    draw(torch.randn(len(settings), size) * 4, settings)


def test_filters() -> None:
    """top-k, top-p and min-p, alone and together, each row its own."""
    settings = [
        (1.0, 1, 1.0, 0.0, 0.9),
        (1.0, SIZE, 1.0, 0.0, 0.5),
        (0.7, 0, 0.5, 0.0, 0.99),
        (1.3, 0, 1e-9, 0.0, 0.5),
        (1.0, 0, 5e-324, 0.0, 0.5),
        (1.0, 0, 1 - 2**-53, 0.0, 0.999),
        (1.0, 0, 1.0, 0.3, 0.999),
        (1.0, 0, 1.0, 1.0, 0.999),
        (2.0, 40, 0.9, 0.02, 0.97),
        (0.0, 5, 0.5, 0.5, 0.5),
    ]
    draw(torch.randn(len(settings), SIZE) * 3, settings, 128)


@pytest.mark.parametrize("values", [1, 3])
def test_ties_go_to_the_lower_id(values: int) -> None:
    """Few values, so that the last of top-k and of top-p are always among equals; zeros of both signs are equal."""
    settings = [(1.0, k, p, 0.0, u) for k, p in ((37, 1.0), (0, 0.37), (150, 0.6)) for u in (0.9999,)]
    logits = torch.randint(0, values, (len(settings), SIZE)).float()
    logits[logits == 0] *= torch.where(torch.arange(int((logits == 0).sum())) % 2 == 0, 1.0, -1.0)
    draw(logits, [*settings[:-1], (0.0, 0, 1.0, 0.0, 0.0)])


def test_what_may_not_come_never_does() -> None:
    """-inf has no weight; a single token that may come always does; nor do far ones, even at the edge of a draw."""
    logits = torch.full((3, SIZE), -math.inf)
    logits[:, 190] = -3.0
    logits[1:, 17] = -33.4
    logits[2:, 150] = 5e4
    for settings in ((1.0, 0, 1.0, 0.0, 1 - 2**-53), (1.0, 5, 0.9, 0.1, 0.0)):
        assert set(draw(logits, [settings] * 3)) <= {17, 150, 190}


def test_neither_chunks_nor_neighbours_show() -> None:
    logits = torch.randn(2, SIZE) * 2
    settings = [(0.8, 50, 0.9, 0.01, u) for u in (0.35, 0.95)]
    together = draw(logits, settings)
    assert [draw(logits[i : i + 1], settings[i : i + 1], 128)[0] for i in range(2)] == together


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_of_16_bits(dtype: torch.dtype) -> None:
    settings = [(1.0, 9, 1.0, 0.0, 0.7), (1.0, 0, 0.8, 0.0, 0.7), (0.0, 0, 1.0, 0.0, 0.7)]
    draw((torch.randn(3, SIZE) * 3).to(dtype), settings)


def test_rows_of_which_nothing_can_be_drawn() -> None:
    """They say so, and their neighbour is drawn as ever."""
    logits = torch.randn(4, SIZE)
    logits[0], logits[1, 7], logits[2, 7] = -math.inf, torch.tensor(math.nan).copysign(torch.tensor(-1.0)), math.inf
    one = torch.ones(4, dtype=torch.float64)
    for temperature in (one, one * 0):
        settings = temperature, one.long() * 9, one / 2, one / 100, one / 2
        expected = naive.sample(logits[3:], *(each[3:] for each in settings)).tolist()
        assert gpu.sample(on_device(logits), *settings).tolist()[:3] == [-1, -1, -1]
        assert gpu.sample(on_device(logits), *settings).tolist()[3:] == expected


def test_a_vocabulary_too_large_is_refused() -> None:
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="vocabulary of more than"):
        gpu.sample(torch.zeros(1, (1 << 18) + 1), one, one.long(), one, one, one)
