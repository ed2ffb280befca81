"""Deterministic CBOR (RFC 8949 section 4.2.1): one value, one encoding. Tags are never interpreted."""

from collections.abc import Callable
from typing import Any, NoReturn

import cbor2

from confide_protocol.errors import Malformed

MAX_CBOR_BYTES = 1 << 20
MAX_DEPTH = 64
_MIN, _MAX = -(1 << 64), (1 << 64) - 1


def _refuse_tag(value: Any, immutable: bool) -> NoReturn:  # noqa: ANN401
    raise ValueError("tags are refused")


class _NoTags(dict[int, Callable[[Any, bool], Any]]):
    """For every tag the same refusal: by itself cbor2 would make dates, regexes and shared values of them."""

    def __missing__(self, tag: int) -> Callable[[Any, bool], Any]:
        return _refuse_tag


def encode(value: Any) -> bytes:  # noqa: ANN401 - CBOR carries any plain value
    """Encode plain values with map keys in bytewise order of their encodings.

    Raises: TypeError for floats, tags, integers over 64 bits and map keys that are neither integer nor text.
    """
    return cbor2.dumps(_ordered(value))


def decode(data: bytes, *, max_bytes: int = MAX_CBOR_BYTES) -> Any:  # noqa: ANN401
    """Decode exactly one deterministically encoded value.

    Refuses tags, floats, duplicates, indefinite lengths, unsorted keys, longer-than-shortest integers and
    trailing bytes, most of them by encoding the result again and comparing.
    Raises: Malformed.
    """
    if len(data) > max_bytes:
        raise Malformed("a CBOR item is larger than its limit")
    try:
        value = cbor2.loads(data, semantic_decoders=_NoTags(), max_depth=MAX_DEPTH)
        canonical = encode(value) == data
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, OverflowError, MemoryError, EOFError):
        raise Malformed("not well-formed CBOR") from None
    if not canonical:
        raise Malformed("CBOR is not in its deterministic encoding")
    return value


def _ordered(value: Any) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, (str, bytes)) or (isinstance(value, int) and _MIN <= value <= _MAX):
        return value
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=_place)}
    if isinstance(value, (list, tuple)):
        return [_ordered(v) for v in value]
    raise TypeError("only plain values have a deterministic encoding here")


def _place(key: Any) -> tuple[int, int, bytes]:  # noqa: ANN401
    """Return what sorts as the key's encoding does: major type, then value, or length and then text."""
    if type(key) is str:
        return 3, len(text := key.encode()), text
    if type(key) is int and _MIN <= key <= _MAX:
        return (0, key, b"") if key >= 0 else (1, -1 - key, b"")
    raise TypeError("map keys are integers or text")
