"""Read safetensors as models are published in: where each float tensor lies. Strict and bounded; runs nothing.

Layout: 8 bytes little-endian header length, JSON header, data without holes;
https://github.com/huggingface/safetensors#format.
"""

import json
import math
import re
from mmap import mmap
from typing import Any, Final, NoReturn

from confide_protocol.errors import ConfigError

from confide_enclave.engine.gguf import MAX_DIMENSIONS, MAX_NAME_BYTES, MAX_TENSORS, TensorInfo
from confide_enclave.engine.gguf_blocks import FORMATS

MAX_HEADER_BYTES: Final = 1 << 24
FLOATS: Final = ("F32", "F16", "BF16")
# Tables of positions, which follow from the configuration, are the only whole numbers in a model of floats.
_SIZES: Final = {kind: FORMATS[kind].bytes for kind in FLOATS} | {"I64": 8}
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def parse_safetensors(data: bytes | mmap, file: str) -> dict[str, TensorInfo]:
    """Parse a whole file and return its floats; `file` is only its name for messages.

    Raises: ConfigError, for any other bytes.
    """

    def refuse(field: str, remedy: str) -> NoReturn:
        raise ConfigError(file, field, remedy)

    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        refuse("header", "is cut short or too long; fetch the file again")
    base = 8 + length
    header = parse_json_object(data[8:base], file, "header")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        refuse("header", f"names more than {MAX_TENSORS} tensors")
    tensors: dict[str, TensorInfo] = {}
    for name, entry in header.items():
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME_BYTES:
            refuse("tensor name", "is not made of letters, digits, '.', '_' and '-'")
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            refuse(name, "is not described by dtype, shape and data_offsets")
        kind = entry["dtype"]
        if type(kind) is not str or kind not in _SIZES:
            refuse(name, f"is not of {', '.join(FLOATS)}; use a model that is not quantised")
        shape, offsets = _sizes(entry["shape"]), _sizes(entry["data_offsets"])
        if shape is None or offsets is None or len(shape) > MAX_DIMENSIONS or len(offsets) != 2:
            refuse(name, "has a shape or offsets that are no sizes")
        start, end = offsets
        if end - start != math.prod(shape) * _SIZES[kind]:
            refuse(name, "does not fill its place")
        tensors[name] = TensorInfo(name, shape, kind, base + start, base + end)
    end = base
    for tensor in sorted(tensors.values(), key=lambda each: (each.start, each.end)):
        if tensor.start != end:
            refuse(tensor.name, "overlaps another tensor, or lies behind a hole")
        end = tensor.end
    if end != len(data):
        refuse("data", "ends before its tensors do, or goes on behind them; fetch the file again")
    return {name: tensor for name, tensor in tensors.items() if tensor.format in FLOATS}


def parse_json_object(data: bytes, file: str, field: str) -> dict[str, Any]:
    """Parse a JSON object in which no name appears twice. Raises: ConfigError."""
    try:
        tree = json.loads(data, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ConfigError(file, field, "is not JSON that names each member once") from None
    if not isinstance(tree, dict):
        raise ConfigError(file, field, "is not a JSON object")
    return tree


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError
    return tree


def _no_number(_: str) -> NoReturn:
    raise ValueError


def _sizes(tree: object) -> tuple[int, ...] | None:
    if not isinstance(tree, list) or not all(type(size) is int and 0 <= size < 1 << 48 for size in tree):
        return None
    return tuple(tree)
