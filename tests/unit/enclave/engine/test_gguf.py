"""The GGUF reader: right values from each format, and one declared error for everything else."""

import struct

import numpy as np
import pytest
from confide_enclave.engine.gguf import parse_gguf
from confide_protocol.errors import ConfigError

from tests.fakes import gguf as fake

SMALL = {"general.architecture": "llama", "a.list": ["x", "yz"], "a.flag": True, "a.float": 0.5}
TENSOR = {"t": (np.arange(64, dtype=np.float32).reshape(2, 32), "F32")}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_formats(kind: str) -> None:
    """Each format gives the values that its blocks stand for, computed independently in float64."""
    array = np.random.default_rng(3).normal(0, 2, (5, 64)).astype(np.float32)
    _, expected = fake.quantise(array, kind)
    out = parse_gguf(fake.write({}, {"t": (array, kind)}), "f").array("t")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(out - array).max() < 0.6


def test_metadata() -> None:
    """Values come back with their types, and the digest depends on the chosen entries alone."""
    parsed = parse_gguf(fake.write(SMALL, TENSOR), "f")
    assert parsed.metadata == SMALL
    reordered = parse_gguf(fake.write(dict(reversed(SMALL.items())), {}), "f")
    assert parsed.digest("a.") == reordered.digest("a.")
    assert parsed.digest("a.") != parse_gguf(fake.write(SMALL | {"a.flag": False}, {}), "f").digest("a.")


@pytest.mark.parametrize(
    ("key", "kind", "words"),
    [("nope", str, "missing"), ("a.flag", int, "must be int"), ("a.list", str, "must be str")],
)
def test_get_names_what_is_wrong(key: str, kind: type, words: str) -> None:
    """A missing or mistyped entry is an error that names file, field and fault; True is no number."""
    with pytest.raises(ConfigError, match=f"^model.gguf: {key}: .*{words}"):
        parse_gguf(fake.write(SMALL, {}), "model.gguf").get(key, kind)


def test_strings_refuses_numbers() -> None:
    """A list of numbers is not a list of texts."""
    with pytest.raises(ConfigError, match="list of texts"):
        parse_gguf(fake.write({"k": [1, 2]}, {}), "f").strings("k")


def test_every_cut_is_refused() -> None:
    """A file that ends early is refused wherever it ends."""
    data = fake.write(SMALL, TENSOR)
    for end in range(len(data)):
        with pytest.raises(ConfigError):
            parse_gguf(data[:end], "f")


def header(version: int = 3, tensors: int = 0, keys: int = 0, rest: bytes = b"") -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, keys) + rest


def info(name: str = "t", shape: tuple[int, ...] = (32,), code: int = 0, offset: int = 0) -> bytes:
    return fake.text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, code, offset)


HUGE = 1 << 63
ENTRY = fake.text("k") + fake.value(1)
BAD = {
    "magic": (b"GGML" + bytes(100), "magic"),
    "version": (header(4), "version"),
    "key count": (header(keys=HUGE), "metadata_kv_count"),
    "tensor count": (header(tensors=HUGE), "tensor_count"),
    "key twice": (header(keys=2, rest=ENTRY + ENTRY), "twice"),
    "key of odd characters": (header(keys=1, rest=fake.text("a\nb") + fake.value(1)), "metadata key"),
    "key not UTF-8": (header(keys=1, rest=struct.pack("<Q", 1) + b"\xff" + fake.value(1)), "UTF-8"),
    "long string": (header(keys=1, rest=fake.text("k") + struct.pack("<IQ", 8, HUGE)), "limit"),
    "long list": (header(keys=1, rest=fake.text("k") + struct.pack("<IIQ", 9, 0, HUGE)), "limit"),
    "list of lists": (header(keys=1, rest=fake.text("k") + struct.pack("<IIQ", 9, 9, 1)), "value type"),
    "value type": (header(keys=1, rest=fake.text("k") + struct.pack("<I", 99)), "value type"),
    "boolean": (header(keys=1, rest=fake.text("k") + struct.pack("<IB", 7, 2)), "boolean"),
    "alignment": (fake.write({"general.alignment": 3}, {}), "alignment"),
    "tensor twice": (header(tensors=2, rest=info() + info(offset=128)) + bytes(512), "twice"),
    "overlap": (header(tensors=2, rest=info() + info("u")) + bytes(512), "overlap"),
    "unaligned": (header(tensors=1, rest=info(offset=1)) + bytes(512), "aligned"),
    "data missing": (header(tensors=1, rest=info(offset=1 << 40)) + bytes(512), "tensor data"),
    "no dimensions": (header(tensors=1, rest=info(shape=())), "dimensions"),
    "five dimensions": (header(tensors=1, rest=info(shape=(1,) * 5)), "dimensions"),
    "empty": (header(tensors=1, rest=info(shape=(0,))) + bytes(512), "shape"),
    "huge shape": (header(tensors=1, rest=info(shape=(HUGE, HUGE))) + bytes(512), "shape"),
    "part of a block": (header(tensors=1, rest=info(shape=(33,), code=8)) + bytes(512), "blocks"),
    "unknown format": (header(tensors=1, rest=info(code=77)) + bytes(512), "not supported"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(case: str) -> None:
    """Each fault is one line that names the file and the field."""
    data, words = BAD[case]
    with pytest.raises(ConfigError, match=words) as caught:
        parse_gguf(data, "model.gguf")
    assert str(caught.value).startswith("model.gguf: ")
    assert "\n" not in str(caught.value)
