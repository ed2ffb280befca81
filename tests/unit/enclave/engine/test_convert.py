"""Conversion: weights that a scheme can hold are kept, and a turned model is the same function."""

import numpy as np
import pytest
import torch
from confide_enclave.engine import convert as module
from confide_enclave.engine.convert import GROUP, convert
from confide_enclave.engine.gguf import parse_gguf
from confide_protocol.errors import ConfigError

from tests.fakes import decoder as toy
from tests.fakes import gguf as fake

IDS = np.random.default_rng(2).integers(0, toy.VOCABULARY, 43).tolist()


def arrays(tensors: dict, scheme: str) -> dict[str, np.ndarray]:
    return dict(convert(parse_gguf(fake.write(fake.toy_metadata(), tensors), "toy.gguf"), scheme))


def opened(made: dict[str, np.ndarray], name: str) -> np.ndarray:
    """What rows of 4 bits stand for."""
    rows, scales = made[f"{name}.rows"], made[f"{name}.scales"].astype(np.float64)
    levels = np.stack([rows & 15, rows >> 4], -1).reshape(*scales.shape[:2], GROUP)
    return (levels * scales[..., :1] + scales[..., 1:]).reshape(len(rows), -1)


def far(tensors: dict, scheme: str = "w8a8") -> float:
    """How far logits are from the definition's, in parts of them."""
    expected = toy.oracle(tensors, IDS)
    got = toy.Machine(tensors, scheme=scheme).read(IDS, [0, 1, 2]).numpy()
    return float(np.sqrt(((got - expected) ** 2).mean() / (expected**2).mean()))


def test_four_bits_keep_q4_1() -> None:
    """Every weight of a matrix in Q4_1 comes back, exactly; norms stay by themselves."""
    tensors = fake.toy_tensors()
    down, norm = tensors["blk.1.ffn_down.weight"][0], tensors["blk.1.ffn_norm.weight"][0]
    made = arrays(tensors | {"blk.1.ffn_down.weight": (down, "Q4_1")}, "w4a16")
    assert np.array_equal(opened(made, "layers.1.down"), fake.quantise(down, "Q4_1")[1])
    assert np.array_equal(made["layers.1.ffn_norm"], norm)


def test_four_bits_of_anything_else() -> None:
    """Each weight is within half a level of its group, and a group of one value is that value."""
    down = np.random.default_rng(3).normal(0, 1, (fake.WIDTH, fake.HIDDEN)).astype(np.float32)
    down[0] = 0.25
    made = arrays(fake.toy_tensors() | {"blk.0.ffn_down.weight": (down, "F32")}, "w4a16")
    got = opened(made, "layers.0.down")
    groups = down.reshape(fake.WIDTH, -1, GROUP)
    level = np.repeat((groups.max(-1) - groups.min(-1)) / 15, GROUP, 1)
    assert (np.abs(got - down) <= 0.52 * level + 1e-9).all()
    assert np.array_equal(got[0], down[0])


def test_weights_that_four_bits_cannot_hold() -> None:
    """Scales are float16: what they cannot hold is refused, and so is a width that is not of whole groups."""
    down = np.full((fake.WIDTH, fake.HIDDEN), 1e5, np.float32)
    with pytest.raises(ConfigError, match=r"layers\.0\.down: .*use w8a8"):
        arrays(fake.toy_tensors() | {"blk.0.ffn_down.weight": (down, "F32")}, "w4a16")
    with pytest.raises(ConfigError, match="multiple of 32 columns"):
        list(module._matrix("odd", down[:, :33], "w4a16"))


@pytest.mark.parametrize(("width", "block"), [(1, 1), (7, 1), (32, 32), (96, 32), (576, 64)])
def test_turning(width: int, block: int) -> None:
    """A Hadamard matrix in blocks, which is its own inverse; the argument stays as it was."""
    values = np.random.default_rng(1).normal(0, 1, (5, width)).astype(np.float32)
    before = values.copy()
    sylvester = np.ones((1, 1))
    while len(sylvester) < block:
        sylvester = np.kron([[1, 1], [1, -1]], sylvester)
    matrix = np.kron(np.eye(width // block), sylvester / np.sqrt(block))
    turned = module._turn(values)
    np.testing.assert_allclose(turned, values @ matrix, atol=1e-5)
    np.testing.assert_allclose(module._turn(turned), values, atol=1e-5)
    assert np.array_equal(values, before)


@pytest.mark.parametrize("tied", [True, False])
def test_turning_changes_no_function(monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    """In float32 a turned model's logits are the definition's."""
    monkeypatch.setattr(module, "is_turned", lambda _: True)
    monkeypatch.setattr("confide_enclave.engine.weights.is_turned", lambda _: True)
    tensors = toy.tensors(1, tied=tied)
    assert "norm" not in arrays(tensors, "none")
    machine = toy.Machine(tensors, scheme="none")
    torch.testing.assert_close(
        machine.read(IDS, [0, 1, 2]).double(), torch.from_numpy(toy.oracle(tensors, IDS)), rtol=3e-4, atol=3e-4
    )


def test_turning_saves_the_rest_from_a_great_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one channel of the residual is far greater than the others, eight bits stay close."""
    tensors = toy.tensors(1)
    tensors["token_embd.weight"][0][:, 3] *= 60
    for name, (array, _) in tensors.items():
        if name.endswith("_norm.weight"):
            array[3] /= 60
    tensors["token_embd.weight"] = (tensors["token_embd.weight"][0], "F32")
    turned = far(tensors)
    monkeypatch.setattr(module, "_turn", lambda values: values)
    assert turned < 0.6 * far(tensors)
