"""What lies in a folder: each kind of model, with the digest that stands for it; faults are told, not raised."""

from pathlib import Path

import pytest
from confide_enclave.engine.checkpoint import open_source
from confide_enclave.engine.encoder import BertEmbedder
from confide_enclave.engine.encoder_card import EncoderLimits
from confide_enclave.engine.package import open_model
from confide_enclave.inventory import Entry, find_models, kind_of

from tests.fakes import checkpoint, encoder, gguf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.gguf").write_bytes(gguf.toy_llama())
    for scheme in ("w8a8", "w4a16"):
        open_model(tmp_path / "toy.gguf", scheme)
    checkpoint.write(tmp_path / "inner/published", "qwen3", shards=2)
    encoder.write(tmp_path / "inner/encoder")
    (tmp_path / "inner/README.md").write_text("x")
    (tmp_path / ".hidden.gguf").write_bytes(b"")
    return tmp_path


def test_each_kind(folder: Path) -> None:
    """Kind, family, parameters and digest of each; scales and packing are not parameters."""
    found = {Path(entry.path).name: entry for entry in find_models(folder)}
    assert {name: (entry.kind, entry.architecture, entry.scheme) for name, entry in found.items()} == {
        "toy.gguf": ("gguf", "llama", ""),
        "toy.w8a8": ("converted", "llama", "w8a8"),
        "toy.w4a16": ("converted", "llama", "w4a16"),
        "published": ("directory", "qwen3", ""),
        "encoder": ("encoder", "bert", ""),
    }
    model = open_model(folder / "toy.w8a8", "w8a8")
    assert found["toy.w8a8"].digest_hex == model.digest.hex()
    assert found["toy.w8a8"].source_hex == found["toy.gguf"].digest_hex == model.source_digest.hex()
    assert found["published"].digest_hex == open_source(folder / "inner/published")[1].hex()
    embedder = BertEmbedder(folder / "inner/encoder", "toy", EncoderLimits())
    assert found["encoder"].digest_hex == embedder.card.weights_digest.hex()
    # A turned model has its norms in its matrices, and a head beside the embedding that the toy ties it to.
    norms, head = (2 * gguf.LAYERS + 1) * gguf.WIDTH, len(gguf.toy_metadata()["tokenizer.ggml.tokens"]) * gguf.WIDTH
    assert found["toy.w4a16"].parameters == found["toy.gguf"].parameters
    assert found["toy.w8a8"].parameters == found["toy.gguf"].parameters - norms + head
    assert found["encoder"].parameters == sum(array.size for array in encoder.tensors().values())
    assert all(entry.bytes > 1000 and not entry.fault for entry in found.values())


def test_one_model(folder: Path) -> None:
    """A folder that is a model, or a file, is that one; anything else is none."""
    assert [entry.kind for entry in find_models(folder / "toy.w8a8")] == ["converted"]
    assert [entry.kind for entry in find_models(folder / "toy.gguf")] == ["gguf"]
    assert kind_of(folder) is kind_of(folder / "inner/README.md") is kind_of(folder / "nope") is None
    assert list(find_models(folder / "nope")) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("toy.gguf", "fetch the file again"),
        ("toy.w8a8/weights.safetensors", "convert the model again"),
        ("toy.w8a8/package.json", "convert the model again"),
        ("inner/published/config.json", "JSON"),
        ("inner/encoder/model.safetensors", "fetch the file again"),
    ],
)
def test_faults(folder: Path, path: str, words: str) -> None:
    """A damaged model is listed with what is wrong; the others are listed all the same."""
    data = (folder / path).read_bytes()
    (folder / path).write_bytes(data[: len(data) // 2])
    entries = list(find_models(folder))
    assert len(entries) == 5
    (faulty,) = [entry for entry in entries if entry.fault]
    assert words in faulty.fault
    assert faulty == Entry(faulty.path, faulty.kind, fault=faulty.fault)
