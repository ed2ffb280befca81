"""The forward pass against an independent float64 decoder, written straight from the file's own layout."""

import numpy as np
import pytest
import torch
from confide_enclave.engine.blocks import KvPool

from tests.fakes import decoder as toy
from tests.fakes import gguf as fake

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
    machine = toy.Machine(tensors, scheme="none", mode="fast", family=family)
    logits = machine.read(IDS, [2, 3, 5], chunk)
    np.testing.assert_allclose(logits.numpy(), toy.oracle(tensors, IDS, family), rtol=3e-4, atol=3e-4)


@pytest.mark.parametrize(
    ("scheme", "mode", "tolerance"),
    [("w8a8", "exact", 0.05), ("w8a8", "fast", 0.05), ("w8a16", "fast", 0.03), ("w4a16", "fast", 0.6)],
)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_quantised_logits_stay_close(scheme: str, mode: str, tolerance: float, family: str) -> None:
    """Fewer bits move the logits by rounding, not by kind."""
    tensors = toy.tensors(1, family)
    machine = toy.Machine(tensors, scheme=scheme, mode=mode, family=family)
    close(machine.read(IDS, [0, 1, 2]), toy.oracle(tensors, IDS, family), tolerance)


@pytest.mark.parametrize(("scheme", "mode", "tolerance"), [("none", "fast", 1e-4), ("w8a8", "exact", 0.05)])
@pytest.mark.parametrize("pages", [([0, 1], [2, 3], [4]), ([7, 1], [3, 2], [0])])
def test_mixed_step_logits(scheme: str, mode: str, tolerance: float, pages: tuple[list[int], ...]) -> None:
    """A step with chunks of some prompts and single rows of others gives each what it would have had alone."""
    tensors = toy.tensors(3)
    machine = toy.Machine(tensors, scheme=scheme, mode=mode)
    first, second, third = IDS[:31], IDS[5:25], IDS[30:41]
    machine.read(first[:-1], pages[0])
    machine.read(second[:6], pages[1])
    machine.read(third[:-1], pages[2])
    parts = ((first[-1:], 30, pages[0]), (second[6:], 6, pages[1]), (third[-1:], 10, pages[2]))
    expected = [toy.oracle(tensors, first)[-1:], toy.oracle(tensors, second)[6:], toy.oracle(tensors, third)[-1:]]
    close(machine.step(*parts), np.concatenate(expected), tolerance)


def test_fast_mode_rounds_rows_to_levels_from_float32() -> None:
    """Attention in bfloat16 costs its own rounding alone: what it gives is not cut to levels in bfloat16."""
    tensors = toy.tensors(1)
    machine = toy.Machine(tensors, mode="fast")
    machine.pool = KvPool(fake.LAYERS, 4, fake.KV_HEADS, toy.HEAD_DIM, torch.bfloat16)
    seen = []
    rows = machine.decoder._rows
    machine.decoder._rows = lambda x: seen.append(x.dtype) or rows(x)
    close(machine.read(IDS, [0, 1, 2]), toy.oracle(tensors, IDS), 0.05)
    assert set(seen) == {torch.float32}
