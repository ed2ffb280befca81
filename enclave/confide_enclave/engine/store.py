"""Named arrays in one memory-mapped file, in the layout of safetensors. Strict and bounded; needs no torch.

Layout: 8 bytes little-endian header length, JSON header, data; https://github.com/huggingface/safetensors.
"""

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
from confide_protocol.errors import ConfigError

MAX_HEADER_BYTES: Final = 1 << 24
Array = npt.NDArray[Any]

_DTYPES: Final = {"I8": np.int8, "U8": np.uint8, "F16": np.float16, "F32": np.float32}
_NAMES: Final = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
# Vector units like whole cache lines.
_ALIGNMENT: Final = 64


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


def map_arrays(path: Path) -> dict[str, Array]:
    """Map the file and return its arrays, which are read as they are used. Raises: ConfigError."""

    def refuse(field: str, remedy: str) -> NoReturn:
        raise ConfigError(str(path), field, remedy)

    try:
        # Private: a write to the array is never one to the file.
        data = np.memmap(path, np.uint8, "c")
    except (OSError, ValueError):
        refuse("weights", "cannot be mapped; convert the model again")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        refuse("header", "is cut short or too long; convert the model again")
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
        entries = [_read_entry(name, entry) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        refuse("header", "is not one of safetensors; convert the model again")
    arrays: dict[str, Array] = {}
    end_before = 8 + length
    for name, dtype, shape, start, end in sorted(entries, key=lambda entry: entry[3:]):
        start, end = 8 + length + start, 8 + length + end
        if not end_before <= start <= end <= len(data) or end - start != math.prod(shape) * dtype.itemsize:
            refuse(name, "lies outside the file or over another; convert the model again")
        if start % dtype.itemsize:
            refuse(name, "is not aligned; convert the model again")
        arrays[name] = data[start:end].view(dtype).reshape(shape)
        end_before = end
    return arrays


def let_go(arrays: Mapping[str, Array]) -> None:
    """Give back the memory of mapped arrays, which are read from their file again where they are used."""
    maps = {id(found): found for array in arrays.values() if (found := getattr(array, "_mmap", None)) is not None}
    for mapped in maps.values():
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def _read_entry(name: str, entry: dict[str, Any]) -> tuple[str, np.dtype[Any], tuple[int, ...], int, int]:
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and number >= 0 for number in (start, end, *shape)):
        raise ValueError
    return name, np.dtype(_DTYPES[entry["dtype"]]), shape, start, end
