"""The forward pass against an independent float64 decoder, written straight from the file's own layout."""

import numpy as np
import pytest
import torch

from tests.fakes import decoder as toy

IDS = np.random.default_rng(2).integers(0, toy.VOCABULARY, 43).tolist()


def close(logits: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Compare by the root mean square of the difference, in parts of that of what is expected."""
    difference = np.sqrt(((logits.numpy() - expected) ** 2).mean()) / np.sqrt((expected**2).mean())
    assert difference < tolerance


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_prompt_logits(family: str, tied: bool, chunk: int) -> None:
    """Whatever the chunks, in float32 the logits are the oracle's."""
    tensors = toy.tensors(1, family, tied)
    machine = toy.Machine(tensors, scheme="none", family=family)
    logits = machine.read(IDS, [2, 3, 5], chunk)
    np.testing.assert_allclose(logits.numpy(), toy.oracle(tensors, IDS, family), rtol=3e-4, atol=3e-4)


@pytest.mark.parametrize(("scheme", "tolerance"), [("w8a8", 0.07), ("w8a16", 0.03), ("w4a16", 0.45)])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_quantised_logits_stay_close(scheme: str, tolerance: float, family: str) -> None:
    """Fewer bits move the logits by rounding, not by kind."""
    tensors = toy.tensors(1, family)
    machine = toy.Machine(tensors, scheme=scheme, family=family)
    close(machine.read(IDS, [0, 1, 2]), toy.oracle(tensors, IDS, family), tolerance)


@pytest.mark.parametrize(("scheme", "tolerance"), [("none", 1e-4), ("w8a16", 0.03), ("w8a8", 0.07)])
@pytest.mark.parametrize("pages", [([0, 1], [2, 3], [4]), ([7, 1], [3, 2], [0])])
def test_mixed_step_logits(scheme: str, tolerance: float, pages: tuple[list[int], ...]) -> None:
    """A step with chunks of some prompts and single rows of others gives each what it would have had alone."""
    tensors = toy.tensors(3)
    machine = toy.Machine(tensors, scheme=scheme)
    first, second, third = IDS[:31], IDS[5:25], IDS[30:41]
    machine.read(first[:-1], pages[0])
    machine.read(second[:6], pages[1])
    machine.read(third[:-1], pages[2])
    parts = ((first[-1:], 30, pages[0]), (second[6:], 6, pages[1]), (third[-1:], 10, pages[2]))
    expected = [toy.oracle(tensors, first)[-1:], toy.oracle(tensors, second)[6:], toy.oracle(tensors, third)[-1:]]
    close(machine.step(*parts), np.concatenate(expected), tolerance)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("scheme", ["w8a16", "none"])
def test_fast_mode_in_bfloat16(scheme: str, family: str) -> None:
    """Rows and cache of bfloat16 cost its own rounding alone, whatever the weights; the residual keeps float32."""
    tensors = toy.tensors(1, family)
    machine = toy.Machine(tensors, scheme=scheme, family=family, dtype=torch.bfloat16)
    assert machine.pool.data.dtype == torch.bfloat16
    close(machine.read(IDS, [0, 1, 2]), toy.oracle(tensors, IDS, family), 0.05)
    assert not machine.pool.tops.any()


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16", "none"])
def test_a_step_leaves_its_arguments(scheme: str) -> None:
    """What a step computes in place is its own: the same step again gives the same logits, weights stay."""
    machine = toy.Machine(toy.tensors(5, tied=False), scheme=scheme)
    embedding = machine.decoder._weights.embedding.rows.clone()
    first = machine.read(IDS, [4, 2, 9])
    assert torch.equal(machine.read(IDS, [4, 2, 9]), first)
    assert torch.equal(machine.decoder._weights.embedding.rows, embedding)
