"""Read GGUF (v2, v3, little-endian): bytes in, metadata and float32 arrays out. Strict and bounded; needs no torch.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import hashlib
import itertools
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from mmap import mmap
from typing import Any, Final, NoReturn

import numpy as np
from confide_protocol.errors import ConfigError

from confide_enclave.engine.gguf_blocks import F32 as F32
from confide_enclave.engine.gguf_blocks import FORMATS

MAX_KEYS: Final = 4_096
MAX_TENSORS: Final = 16_384
MAX_NAME_BYTES: Final = 256
MAX_STRING_BYTES: Final = 1 << 20
MAX_ARRAY_ITEMS: Final = 1 << 21
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 1 << 16

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_STRING, _ARRAY = 8, 9
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. `shape` is row-major (numpy's order, the reverse of the file's)."""

    name: str
    shape: tuple[int, ...]
    format: str
    start: int
    end: int


@dataclass(frozen=True)
class Gguf:
    """A model, mostly one parsed file. `metadata_raw` holds each entry's exact bytes, key and type included."""

    file: str
    metadata: dict[str, Value]
    metadata_raw: dict[str, bytes]
    tensors: dict[str, TensorInfo]
    _read: Callable[[TensorInfo], F32]

    def array(self, name: str) -> F32:
        """Return the tensor as float32 in a fresh, writable array, finite or not. Raises: ConfigError."""
        info = self.tensors.get(name)
        if info is None:
            raise ConfigError(self.file, name, "is missing; the file is not a whole model of this kind")
        return self._read(info)

    def get(self, key: str, kind: type[Any], default: Any = None) -> Any:  # noqa: ANN401
        """Return the metadata value, which must be of `kind`. Raises: ConfigError when absent without default."""
        value = self.metadata.get(key, default)
        if value is None:
            raise ConfigError(self.file, key, "is missing; the file does not describe its model")
        if type(value) is not kind:
            raise ConfigError(self.file, key, f"must be {kind.__name__}")
        return value

    def strings(self, key: str) -> list[str]:
        """Return the metadata array of texts. Raises: ConfigError."""
        values = self.get(key, list)
        if not all(type(value) is str for value in values):
            raise ConfigError(self.file, key, "must be a list of texts")
        return list(values)

    def digest(self, prefix: str) -> bytes:
        """SHA-256 over the exact bytes of every metadata entry whose key starts with `prefix`, in key order."""
        entries = sorted((key, raw) for key, raw in self.metadata_raw.items() if key.startswith(prefix))
        return hashlib.sha256(b"".join(raw for _, raw in entries)).digest()


def decode_tensor(data: bytes | mmap, info: TensorInfo) -> F32:
    """Return the tensor that lies in `data` as float32, in a fresh, writable array."""
    block = FORMATS[info.format]
    blocks = np.frombuffer(data, np.uint8, info.end - info.start, info.start)
    with np.errstate(all="ignore"):
        return block.decode(blocks.reshape(-1, block.bytes)).reshape(info.shape)


def parse_gguf(data: bytes | mmap, file: str) -> Gguf:
    """Parse a whole file; `file` is only its name for messages. Raises: ConfigError, for any other bytes."""
    cursor = _Cursor(data, file)
    if data[:4] != b"GGUF":
        raise ConfigError(file, "magic", "is not GGUF; give a .gguf model file")
    cursor.offset = 4
    if (version := cursor.u32("version")) not in (2, 3):
        raise ConfigError(file, "version", f"{version} is not supported; convert the model to GGUF v3")
    tensor_count = cursor.bounded("tensor_count", MAX_TENSORS)
    key_count = cursor.bounded("metadata_kv_count", MAX_KEYS)
    metadata: dict[str, Value] = {}
    raw: dict[str, bytes] = {}
    for _ in range(key_count):
        start = cursor.offset
        key = cursor.name("metadata key")
        if key in metadata:
            cursor.fail("metadata key", "appears twice")
        metadata[key] = cursor.value(key)
        raw[key] = data[start : cursor.offset]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        cursor.fail("general.alignment", f"must be a power of two of at most {MAX_ALIGNMENT}")
    entries = [_read_tensor_info(cursor) for _ in range(tensor_count)]
    base = -(-cursor.offset // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for entry in entries:
        start, end = base + entry.start, base + entry.end
        if entry.start % alignment:
            cursor.fail("tensor offset", "is not aligned")
        if end > len(data):
            cursor.fail("tensor data", "ends before its tensors do; fetch the file again")
        if entry.name in tensors:
            cursor.fail("tensor name", "appears twice")
        tensors[entry.name] = TensorInfo(entry.name, entry.shape, entry.format, start, end)
    spans = sorted((tensor.start, tensor.end) for tensor in tensors.values())
    if any(left[1] > right[0] for left, right in itertools.pairwise(spans)):
        cursor.fail("tensor offset", "lets two tensors overlap")
    return Gguf(file, metadata, raw, tensors, partial(decode_tensor, data))


def from_metadata(
    file: str, metadata: Mapping[str, Value], tensors: dict[str, TensorInfo], read: Callable[[TensorInfo], F32]
) -> Gguf:
    """Return a model that is described so, its metadata as if read from a GGUF file. Raises: ConfigError."""
    try:
        entries = b"".join(_text(key) + _encode(value) for key, value in metadata.items())
    except (UnicodeEncodeError, struct.error):
        raise ConfigError(file, "metadata", "holds a text or number that GGUF cannot") from None
    parsed = parse_gguf(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(metadata)) + entries, file)
    return replace(parsed, tensors=tensors, _read=read)


def _text(text: str) -> bytes:
    return _U64.pack(len(data := text.encode())) + data


def _encode(value: Value) -> bytes:
    """Encode a value with the type that its Python type and, in a list, its first item says."""
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return _U32.pack(_STRING) + _text(value)
        case [str(), *_] | []:
            return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_text, map(str, value)))
    return struct.pack(f"<IIQ{len(value)}i", _ARRAY, 5, len(value), *value)


def _read_tensor_info(cursor: "_Cursor") -> TensorInfo:
    """Offsets of the result count from the start of the tensor data."""
    name = cursor.name("tensor name")
    dimensions = cursor.u32("tensor dimensions")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        cursor.fail("tensor dimensions", f"must be 1 to {MAX_DIMENSIONS}")
    shape = tuple(reversed([cursor.bounded("tensor shape", len(cursor.data) * 8) for _ in range(dimensions)]))
    code = cursor.u32("tensor type")
    kind = next((name for name, known in FORMATS.items() if known.code == code), None)
    if kind is None:
        cursor.fail("tensor type", f"{code} is not supported; use one of {', '.join(FORMATS)}")
    block = FORMATS[kind]
    if shape[-1] % block.weights or not all(shape):
        cursor.fail("tensor shape", f"does not fit {kind} blocks")
    start = cursor.u64("tensor offset")
    size = math.prod(shape) // block.weights * block.bytes
    return TensorInfo(name, shape, kind, start, start + size)


class _Cursor:
    def __init__(self, data: bytes | mmap, file: str) -> None:
        self.data, self.file, self.offset = data, file, 0

    def fail(self, field: str, remedy: str) -> NoReturn:
        raise ConfigError(self.file, field, remedy)

    def take(self, count: int, field: str) -> bytes:
        end = self.offset + count
        if end > len(self.data):
            self.fail(field, "lies beyond the end; the file is cut short, fetch it again")
        piece = self.data[self.offset : end]
        self.offset = end
        return piece

    def u32(self, field: str) -> int:
        return int(_U32.unpack(self.take(4, field))[0])

    def u64(self, field: str) -> int:
        return int(_U64.unpack(self.take(8, field))[0])

    def bounded(self, field: str, limit: int) -> int:
        if (count := self.u64(field)) > limit:
            self.fail(field, f"is over the limit of {limit}")
        return count

    def text(self, field: str, limit: int = MAX_STRING_BYTES) -> str:
        try:
            return self.take(self.bounded(field, limit), field).decode()
        except UnicodeDecodeError:
            self.fail(field, "is not UTF-8")

    def name(self, field: str) -> str:
        name = self.text(field, MAX_NAME_BYTES)
        if not _NAME.fullmatch(name):
            self.fail(field, "is not made of letters, digits, '.', '_' and '-'")
        return name

    def value(self, key: str) -> Value:
        if (kind := self.u32(key)) != _ARRAY:
            return self.text(key) if kind == _STRING else self.scalars(key, kind, 1)[0]
        kind = self.u32(key)
        count = self.bounded(key, MAX_ARRAY_ITEMS)
        return [self.text(key) for _ in range(count)] if kind == _STRING else self.scalars(key, kind, count)

    def scalars(self, key: str, kind: int, count: int) -> list[Scalar]:
        code = _SCALARS.get(kind)
        if code is None:
            self.fail(key, f"has the unknown value type {kind}")
        piece = self.take(count * struct.calcsize(code), key)
        if code == "?" and any(byte > 1 for byte in piece):
            self.fail(key, "holds a boolean that is neither 0 nor 1")
        return list(struct.unpack(f"<{count}{code}", piece))
