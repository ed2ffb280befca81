"""Tests of the values that statements and claims hold: what is not exactly right is malformed."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from confide_protocol import labels
from confide_protocol.errors import Malformed

Test = Callable[[Any], bool]


def check_fields(tree: Mapping[str, Any], fields: Mapping[str, Test]) -> None:
    """Raises: Malformed, naming the first field of `fields` whose value is not of its type or range."""
    for name, is_valid in fields.items():
        if not is_valid(tree[name]):
            raise Malformed(f"{name} is not of its type or range")


def is_bytes(least: int, most: int) -> Test:
    return lambda value: isinstance(value, bytes) and least <= len(value) <= most


def is_int(low: int, high: int) -> Test:
    return lambda value: type(value) is int and low <= value < high


def is_text(least: int, most: int) -> Test:
    return lambda value: isinstance(value, str) and least <= len(value) <= most


def is_bool(value: object) -> bool:
    return isinstance(value, bool)


def is_one_of(*names: str) -> Test:
    return lambda value: isinstance(value, str) and value in names


def is_absent_or(is_valid: Test) -> Test:
    return lambda value: value is None or is_valid(value)


is_digest: Final = is_bytes(labels.DIGEST_BYTES, labels.DIGEST_BYTES)
is_time: Final = is_int(0, 253_402_300_800)  # until the year 10000: all of them can be shown
