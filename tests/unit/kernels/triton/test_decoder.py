"""A whole decoder on GPU kernels: its logits are those of a processor, in exact mode to the last bit."""

import pytest
import torch
from confide_kernels import place

from tests.unit.kernels.triton.shared import DEVICE, require_triton, same_bits

require_triton()
from tests.fakes import decoder as toy  # noqa: E402

IDS = [1, 5, 7, 9, 2, 40, 3, 8, 8, 21, 30, 4, 6, 2, 90, 17, 33, 60, 12, 5, 44]


def steps(machine: toy.Machine) -> list[torch.Tensor]:
    """A prompt that many queries read, beside one of few; then single rows and guesses, in scattered pages."""
    first = machine.step((IDS, 0, [7, 2]), (IDS[:3], 0, [5]))
    second = machine.step((IDS[:1], 21, [7, 2]), (IDS[4:9], 3, [5]))
    return [first, second, machine.step((IDS[:1], 8, [5]))]


def interpret(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the CPU stands for a GPU, where there is none."""
    if DEVICE == "cpu":
        monkeypatch.setattr(place, "INTERPRETED", True)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_exact_mode_has_the_same_bits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits and all that is kept in the cache."""
    tensors = toy.tensors(3, family)
    theirs = toy.Machine(tensors, family=family)
    expected = steps(theirs)
    interpret(monkeypatch)
    mine = toy.Machine(tensors, family=family, device=DEVICE)
    for got, own in zip(steps(mine), expected, strict=True):
        same_bits(got, own)
    same_bits((mine.pool.data, mine.pool.tops), (theirs.pool.data, theirs.pool.tops))


@pytest.mark.parametrize(("scheme", "dtype"), [("none", torch.float32), ("w8a16", torch.float16)])
def test_fast_mode_comes_close(scheme: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = toy.tensors(3, "qwen2")
    expected = steps(toy.Machine(tensors, scheme=scheme, family="qwen2"))
    interpret(monkeypatch)
    machine = toy.Machine(tensors, scheme=scheme, family="qwen2", dtype=dtype, device=DEVICE)
    bound = 1e-3 if dtype == torch.float32 else 5e-2
    for got, own in zip(steps(machine), expected, strict=True):
        torch.testing.assert_close(got, own, rtol=bound, atol=bound * float(own.abs().max()))
