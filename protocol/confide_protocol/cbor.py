"""Deterministic CBOR (RFC 8949 section 4.2.1): one value, one encoding."""

import io
from typing import Any

import cbor2

from confide_protocol.errors import Malformed

MAX_CBOR_BYTES = 1 << 20


def encode(value: Any) -> bytes:  # noqa: ANN401 - CBOR carries any plain value
    """Encode plain values with map keys in bytewise order of their encodings; floats are refused."""
    return cbor2.dumps(_ordered(value))


def decode(data: bytes, *, max_bytes: int = MAX_CBOR_BYTES) -> Any:  # noqa: ANN401
    """Decode exactly one deterministically encoded value.

    Refuses duplicates, indefinite lengths, unsorted keys, longer-than-shortest integers and trailing bytes
    by encoding the result again and comparing.
    Raises: Malformed.
    """
    if len(data) > max_bytes:
        raise Malformed("a CBOR item is larger than its limit")
    try:
        stream = io.BytesIO(data)
        value = cbor2.load(stream)
        canonical = stream.tell() == len(data) and encode(value) == data
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, OverflowError, MemoryError, EOFError):
        raise Malformed("not well-formed CBOR") from None
    if not canonical:
        raise Malformed("CBOR is not in its deterministic encoding")
    return value


def _ordered(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        if not all(type(key) in (int, str) for key in value):
            raise TypeError("map keys are integers or text")
        pairs = sorted(((cbor2.dumps(_ordered(k)), k, _ordered(v)) for k, v in value.items()), key=lambda p: p[0])
        return {k: v for _, k, v in pairs}
    if isinstance(value, (list, tuple)):
        return [_ordered(v) for v in value]
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return value
    raise TypeError("only plain values have a deterministic encoding here")
