"""Weights that are not exactly a decoder's are refused by name."""

import numpy as np
import pytest
import torch
from confide_enclave.engine.config import read_config
from confide_enclave.engine.convert import convert
from confide_enclave.engine.gguf import parse_gguf
from confide_enclave.engine.weights import load_weights
from confide_protocol.errors import ConfigError

from tests.fakes import decoder as toy
from tests.fakes import gguf as fake


def load(metadata: dict | None = None, tensors: dict | None = None) -> None:
    file = fake.write(fake.toy_metadata() | (metadata or {}), tensors or fake.toy_tensors())
    dict(convert(parse_gguf(file, "toy.gguf"), "none"))


@pytest.mark.parametrize(
    ("key", "item"),
    [
        ("general.architecture", "mamba"),
        ("llama.block_count", 0),
        ("llama.block_count", 5_000),
        ("llama.attention.head_count", 5),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.layer_norm_rms_epsilon", float("nan")),
        ("llama.rope.freq_base", float("inf")),
        ("llama.rope.dimension_count", 4),
        ("llama.attention.value_length", 4),
        ("llama.rope.scaling.type", "yarn"),
    ],
)
def test_metadata_that_does_not_fit(key: str, item: object) -> None:
    """Each wrong entry is one ConfigError with the file's name."""
    with pytest.raises(ConfigError, match=r"^toy.gguf: "):
        load({key: item})


def test_missing_metadata() -> None:
    """A file that does not say its shape is refused."""
    metadata = fake.toy_metadata()
    del metadata["llama.embedding_length"]
    with pytest.raises(ConfigError, match=r"llama\.embedding_length: is missing"):
        read_config(parse_gguf(fake.write(metadata, {}), "toy"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    """One NaN in a tensor is found before it can answer anybody."""
    tensors = fake.toy_tensors()
    tensors["blk.1.ffn_norm.weight"][0][3] = value
    with pytest.raises(ConfigError, match=r"blk\.1\.ffn_norm\.weight: .*not finite"):
        load(tensors=tensors)


def test_missing_odd_and_extra_tensors() -> None:
    """What is missing, of another shape, or unknown is named."""
    tensors = fake.toy_tensors()
    with pytest.raises(ConfigError, match=r"blk\.0\.attn_q\.weight: is missing"):
        load(tensors={name: tensor for name, tensor in tensors.items() if name != "blk.0.attn_q.weight"})
    with pytest.raises(ConfigError, match=r"blk\.0\.ffn_up\.weight: has the shape"):
        load(tensors=tensors | {"blk.0.ffn_up.weight": tensors["blk.0.attn_q.weight"]})
    with pytest.raises(ConfigError, match=r"blk\.0\.attn_q.bias: is a tensor that"):
        load(tensors=tensors | {"blk.0.attn_q.bias": tensors["output_norm.weight"]})


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16"])
@pytest.mark.parametrize(
    "name", ["norm", "embedding.rows", "layers.1.attn_norm", "layers.1.down.scales", "layers.0.qkv.rows"]
)
@pytest.mark.parametrize("fault", ["missing", "shape", "dtype"])
def test_arrays_that_do_not_fit(scheme: str, name: str, fault: str) -> None:
    """A package whose arrays are not what its metadata says is refused by the array's name."""
    model = toy.model(toy.tensors(), scheme)
    array = model.arrays.pop(name)
    if fault != "missing":
        model.arrays[name] = array[:-1] if fault == "shape" else array.astype(np.int32)
    with pytest.raises(ConfigError, match=rf"toy.gguf: {name.removesuffix('.rows').removesuffix('.scales')}"):
        load_weights(model, torch.float32)


@pytest.mark.parametrize("tied", [True, False])
def test_arrays_are_not_there_twice(tied: bool) -> None:
    """Taken ones leave the model when they are packed; the weights are the same."""
    tensors = toy.tensors(tied=tied)
    kept, left = load_weights(toy.model(tensors, "w4a16"), torch.float32), toy.model(tensors, "w4a16")
    taken = load_weights(left, torch.float32, take=True)
    assert not left.arrays
    assert torch.equal(taken.head.rows, kept.head.rows)
    assert torch.equal(taken.layers[-1].down.rows, kept.layers[-1].down.rows)


def test_a_head_that_is_tied_is_the_embedding() -> None:
    """Read and made smaller once: no memory has it twice."""
    weights = load_weights(toy.model(toy.tensors(1), "none"), torch.bfloat16, take=True)
    assert weights.head.rows.dtype == torch.bfloat16
    assert weights.head.rows.data_ptr() == weights.embedding.rows.data_ptr()
