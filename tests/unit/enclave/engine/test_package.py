"""Converted packages: made once, checked whenever opened, made again when they are not the file's."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from confide_enclave.engine.convert import Scheme
from confide_enclave.engine.package import open_model, open_package
from confide_enclave.engine.store import read_arrays, write_arrays
from confide_protocol.errors import ConfigError

from tests.fakes import gguf as fake

FILES = ("package.json", "metadata.gguf", "weights.safetensors")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.gguf"
    path.write_bytes(fake.toy_llama())
    return path


def inode(package: Path) -> int:
    return (package / "weights.safetensors").stat().st_ino


def test_a_file_is_converted_once(toy: Path, tmp_path: Path) -> None:
    """The package lies beside the file, is used again, and may be opened by itself; the numbers are the same."""
    first = open_model(toy, "w8a8")
    made = inode(tmp_path / "toy.w8a8")
    for model in (open_model(toy, "w8a8"), open_model(tmp_path / "toy.w8a8", "w8a8"), open_model(toy, "w8a8")):
        assert (model.digest, model.source_digest) == (first.digest, first.source_digest)
        assert model.metadata.metadata_raw == first.metadata.metadata_raw
        assert all(np.array_equal(first.arrays[name], array) for name, array in model.arrays.items())
    assert inode(tmp_path / "toy.w8a8") == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.gguf", "toy.w8a8"]


def test_the_digest_covers_every_bit(toy: Path, tmp_path: Path) -> None:
    """Two conversions of one file have one digest, wherever they are; another scheme or file has another."""
    digests = {open_model(toy, "w8a8", convert_dir=tmp_path / name).digest for name in ("a", "b/c")}
    assert len(digests) == 1
    digests.add(open_model(toy, "w8a16").digest)
    digests.add(open_model(toy, "w4a16").digest)
    toy.write_bytes(fake.toy_llama(1))
    digests.add(open_model(toy, "w8a8").digest)
    assert len(digests) == 4


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_package_is_refused_or_made_again(toy: Path, tmp_path: Path, name: str) -> None:
    """One byte changed: by itself the package is refused, and beside its file it is made again."""
    digest, package = open_model(toy, "w8a8").digest, tmp_path / "toy.w8a8"
    data = bytearray((package / name).read_bytes())
    data[len(data) // 2] ^= 1
    (package / name).write_bytes(data)
    with pytest.raises(ConfigError, match="convert the model again"):
        open_package(package)
    assert open_model(toy, "w8a8").digest == digest
    (package / name).unlink()
    with pytest.raises(ConfigError, match="No such file"):
        open_package(package)


def test_what_was_hashed_is_what_computes(toy: Path, tmp_path: Path) -> None:
    """Weights that are written over, or cut short, while a model is loaded change none of its arrays."""
    model, weights = open_model(toy, "w8a8"), tmp_path / "toy.w8a8" / "weights.safetensors"
    before = {name: array.copy() for name, array in model.arrays.items()}
    with weights.open("r+b") as file:
        file.write(b"\xff" * weights.stat().st_size)
    assert all(np.array_equal(before[name], array) for name, array in model.arrays.items())
    os.truncate(weights, 64)
    assert all(np.array_equal(before[name], array) for name, array in model.arrays.items())


@pytest.mark.parametrize("scheme", ["w8a8", "none"])
def test_described_is_not_loaded(toy: Path, scheme: Scheme) -> None:
    """It has the digests and the metadata of what is loaded, and no arrays; `none` is not even decoded."""
    loaded, told = open_model(toy, scheme), open_model(toy, scheme, load=False)
    assert replace(loaded, arrays={}, metadata=told.metadata) == told
    assert told.metadata.metadata_raw == loaded.metadata.metadata_raw


def test_an_index_from_elsewhere_is_refused(toy: Path, tmp_path: Path) -> None:
    """Another version, a scheme that is not one, and JSON that is not an object."""
    open_model(toy, "w8a8")
    path = tmp_path / "toy.w8a8" / "package.json"
    index = json.loads(path.read_text())
    wrong = ({"format": 99}, {"format": 1}, {"scheme": "none"}, {"files": {}})
    for changed in (*(index | entry for entry in wrong), [], 1):
        path.write_text(json.dumps(changed))
        with pytest.raises(ConfigError, match="not of this version"):
            open_package(tmp_path / "toy.w8a8")


def test_what_is_opened_is_what_was_asked_for(toy: Path, tmp_path: Path) -> None:
    """Another scheme or another source than expected is refused."""
    source = open_model(toy, "w8a8").source_digest.hex()
    package = tmp_path / "toy.w8a8"
    assert open_model(package, "w8a8", expected_sha256=source.upper()).source_digest.hex() == source
    with pytest.raises(ConfigError, match="scheme: is w8a8"):
        open_model(package, "w8a16")
    for path in (toy, package):
        with pytest.raises(ConfigError, match=f"sha256: is {source}, expected {'0' * 64}"):
            open_model(path, "w8a8", expected_sha256="0" * 64)


def test_where_nothing_can_be_written(toy: Path, tmp_path: Path) -> None:
    """The conversion is used all the same, and leaves nothing behind."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    model = open_model(toy, "w8a8", convert_dir=blocked / "below")
    assert model.digest == open_model(toy, "w8a8").digest
    assert model.arrays["head.rows"].any()


def test_arrays_come_back(tmp_path: Path) -> None:
    """Every kind and shape, aligned, with the digest of the file; a write to an array is not one to the file."""
    arrays = {
        "a": np.arange(7, dtype=np.int8),
        "b": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
        "c": np.zeros((0, 4), np.uint8),
        "d": np.ones((1, 2, 3), np.float16),
    }
    path = tmp_path / "x.safetensors"
    write_arrays(path, arrays)
    found, digest = read_arrays(path)
    assert digest == hashlib.sha256(path.read_bytes()).digest()
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)
        assert found[name].ctypes.data % 64 == 0
    found["a"][0] = 99
    assert read_arrays(path)[0]["a"][0] == 0


def entry(dtype: object = "I8", shape: object = (8,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "header",
    [
        [], 1, {"a": 1}, {"a": {}}, {"a": entry("F64")}, {"a": entry(shape=(9,))}, {"a": entry(shape=(-8,))},
        {"a": entry(offsets=(0, 9))}, {"a": entry(offsets=(-8, 0))}, {"a": entry(offsets=(60, 68))},
        {"a": entry(), "b": entry()}, {"a": entry("F32", (1,), (1, 5))}, {"a": entry(shape=(8.0,))},
        {"a": entry(offsets="ab")}, {"a": entry(["I8"])},
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path: Path, header: object) -> None:
    """Arrays outside the file, over one another, unaligned or of unknown kind are refused."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    with pytest.raises(ConfigError, match="convert the model again"):
        read_arrays(path)


@pytest.mark.parametrize("data", [b"", b"1234567", bytes(8), b"\xff" * 16, (3).to_bytes(8, "little") + b"{}"])
def test_files_that_are_cut(tmp_path: Path, data: bytes) -> None:
    """A file too short for its header is refused."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="convert the model again"):
        read_arrays(path)
