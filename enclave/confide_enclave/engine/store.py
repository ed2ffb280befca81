"""Named arrays in one file, in the layout of safetensors, read into memory. Strict and bounded; needs no torch.

Layout: 8 bytes little-endian header length, JSON header, data; https://github.com/huggingface/safetensors.
"""

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from confide_protocol.errors import ConfigError

MAX_HEADER_BYTES: Final = 1 << 24
Array = npt.NDArray[Any]

_DTYPES: Final = {"I8": np.int8, "U8": np.uint8, "F16": np.float16, "F32": np.float32}
_NAMES: Final = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
# Vector units like whole cache lines.
_ALIGNMENT: Final = 64
# Hashed while it lies in the processor's cache.
_PIECE_BYTES: Final = 1 << 20


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write contiguous arrays, in the order given."""
    header: dict[str, object] = {}
    end = 0
    for name, array in arrays.items():
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        base = file.tell()
        for array in arrays.values():
            file.write(bytes(-(file.tell() - base) % _ALIGNMENT))
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def read_arrays(path: Path) -> tuple[dict[str, Array], bytes]:
    """Read the file once into memory; return its arrays and the SHA-256 of it as it was read. Raises: ConfigError.

    Each array has memory of its own, which goes when nobody holds the array any more. Nothing of the file is read
    again: what changes there later changes no array.
    """
    arrays: dict[str, Array] = {}
    with _opened(path) as reader:
        for place in reader.places:
            reader.pass_to(place.start)
            arrays[place.name] = reader.take(place)
        reader.pass_to(reader.size)
        return arrays, reader.sha256.digest()


def read_places(path: Path) -> list["Place"]:
    """Return what the file says that it holds, in the order of the data. Raises: ConfigError."""
    with _opened(path) as reader:
        return reader.places


class Place(NamedTuple):
    """Where an array lies in its file."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    end: int


@contextmanager
def _opened(path: Path) -> Iterator["_Reader"]:
    try:
        with path.open("rb") as file:
            yield _Reader(path, file)
    except OSError as fault:
        raise ConfigError(str(path), "weights", f"cannot be read ({fault.strerror})") from None


class _Reader:
    """Hashes whatever it reads, from memory that no file is behind."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self.sha256, self.size, self._at = hashlib.sha256(), os.fstat(file.fileno()).st_size, 0
        length = int.from_bytes(self._read(min(8, self.size)), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, self.size - 8):
            self.refuse("header", "is cut short or too long; convert the model again")
        text = self._read(length)
        try:
            places = [
                _read_entry(name, entry, self._at)
                for name, entry in json.loads(text).items()
                if name != "__metadata__"
            ]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.refuse("header", "is not one of safetensors; convert the model again")
        self.places: Final = sorted(places, key=lambda place: place[3:])
        end_before = self._at
        for name, dtype, shape, start, end in self.places:
            if not end_before <= start <= end <= self.size or end - start != math.prod(shape) * dtype.itemsize:
                self.refuse(name, "lies outside the file or over another; convert the model again")
            if start % dtype.itemsize:
                self.refuse(name, "is not aligned; convert the model again")
            end_before = end

    def take(self, place: Place) -> Array:
        size = place.end - place.start
        # Not malloc's: this goes back to the system with the array.
        buffer = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._fill(memoryview(buffer)[:size])
        return np.frombuffer(buffer, place.dtype, math.prod(place.shape)).reshape(place.shape)

    def pass_to(self, end: int) -> None:
        while self._at < end:
            self._read(min(end - self._at, _PIECE_BYTES))

    def refuse(self, field: str, remedy: str) -> NoReturn:
        raise ConfigError(str(self._path), field, remedy)

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        self._fill(memoryview(data))
        return data

    def _fill(self, view: memoryview) -> None:
        for start in range(0, len(view), _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            if self._file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
                self.refuse("weights", "became shorter while it was read; convert the model again")
            self.sha256.update(piece)
            self._at += len(piece)


def _read_entry(name: str, entry: dict[str, Any], base: int) -> Place:
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and number >= 0 for number in (start, end, *shape)):
        raise ValueError
    return Place(name, np.dtype(_DTYPES[entry["dtype"]]), shape, base + start, base + end)
