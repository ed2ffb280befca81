"""The safetensors reader: where tensors lie, and one declared error for everything else."""

import json

import numpy as np
import pytest
from confide_enclave.engine.gguf import decode_tensor
from confide_enclave.engine.safetensors_file import parse_json_object, parse_safetensors
from confide_protocol.errors import ConfigError

from tests.fakes import checkpoint as fake

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones((1, 2, 2), np.float32)}


@pytest.mark.parametrize("dtype", fake.DTYPES)
def test_values(dtype: str) -> None:
    """Arrays come back as they were written, wherever they lie."""
    data = fake.safetensors(ARRAYS, dtype, __metadata__={"format": "pt"})
    found = parse_safetensors(data, "f")
    assert found.keys() == ARRAYS.keys()
    for name, info in found.items():
        assert np.array_equal(decode_tensor(data, info), ARRAYS[name])


def test_bfloat16() -> None:
    """The upper half of a float32, without numpy knowing of it."""
    text = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = len(text).to_bytes(8, "little") + text + b"\x80\x3f\x00\xc0"
    assert decode_tensor(data, parse_safetensors(data, "f")["x"]).tolist() == [1.0, -2.0]


def test_positions_are_left_out() -> None:
    """A table of whole numbers has its place in the file, and nothing else."""
    header = {"a": entry(), "p": {"dtype": "I64", "shape": [1, 2], "data_offsets": [64, 80]}}
    assert parse_safetensors(raw(header, bytes(80)), "f").keys() == {"a"}


def test_every_cut_is_refused() -> None:
    """A file that ends early is refused wherever it ends, and so is one that goes on."""
    data = fake.safetensors(ARRAYS)
    for end in range(len(data)):
        with pytest.raises(ConfigError):
            parse_safetensors(data[:end], "f")
    with pytest.raises(ConfigError, match="goes on"):
        parse_safetensors(data + b"\0", "f")


def raw(header: object, body: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(**changes) -> dict:
    return {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} | changes


BAD = {
    "length": ((1 << 62).to_bytes(8, "little") + bytes(99), "header"),
    "no JSON": (raw(b"{"), "JSON"),
    "deep JSON": (raw(b"[" * 100_000), "JSON"),
    "no object": (raw([]), "object"),
    "twice": (raw(b'{"a":{},"a":{}}'), "once"),
    "not a number": (raw(b'{"a":NaN}'), "once"),
    "name": (raw({"a\nb": entry()}), "tensor name"),
    "long name": (raw({"a" * 257: entry()}), "tensor name"),
    "entry": (raw({"a": 7}), "described"),
    "member": (raw({"a": entry(more=1)}), "described"),
    "dtype": (raw({"a": entry(dtype="I8")}), "quantised"),
    "odd dtype": (raw({"a": entry(dtype=["F32"])}), "quantised"),
    "negative": (raw({"a": entry(shape=[-4, -4])}), "sizes"),
    "fraction": (raw({"a": entry(shape=[4.0, 4])}), "sizes"),
    "truth": (raw({"a": entry(shape=[True, 16])}), "sizes"),
    "dimensions": (raw({"a": entry(shape=[1, 1, 1, 1, 16])}), "sizes"),
    "huge": (raw({"a": entry(shape=[1 << 60])}), "sizes"),
    "offsets": (raw({"a": entry(data_offsets=[0, 32, 64])}), "sizes"),
    "too small": (raw({"a": entry(data_offsets=[0, 60])}), "fill"),
    "backwards": (raw({"a": entry(data_offsets=[64, 0])}), "fill"),
    "overlap": (raw({"a": entry(), "b": entry()}), "overlaps"),
    "hole": (raw({"a": entry(data_offsets=[4, 68])}, bytes(68)), "hole"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(case: str) -> None:
    """Each fault is one line that names the file and the field."""
    data, words = BAD[case]
    with pytest.raises(ConfigError, match=words) as caught:
        parse_safetensors(data, "m.safetensors")
    assert str(caught.value).startswith("m.safetensors: ")
    assert "\n" not in str(caught.value)


def test_json_object() -> None:
    """The same reader serves the files beside."""
    assert parse_json_object(b'{"a": {"b": [1]}}', "f", "file") == {"a": {"b": [1]}}
