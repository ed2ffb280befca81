"""Read fields of other providers' JSON; every fault names the field, and makes no trust claim."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.foreign.ids import ForeignCheck
from confide_attestation.strict_json import load_json

MAX_REPORT_BYTES = 4 << 20
MAX_DEPTH = 32
_HEX = re.compile("(?:0x)?((?:[0-9a-fA-F]{2})+)")


def malformed(detail: str) -> EvidenceMalformed:
    return EvidenceMalformed(detail, ForeignCheck.REPORT_FORMAT)


def read_json(data: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse JSON of bounded size and depth, every name once. Raises: EvidenceMalformed."""
    if len(data) > MAX_REPORT_BYTES:
        raise malformed(f"a report of {len(data)} bytes is too large; at most {MAX_REPORT_BYTES}")
    tree = load_json(data, ForeignCheck.REPORT_FORMAT, ", a provider's report")
    level = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for each in level for child in _members(each)]
    if level:
        raise malformed(f"JSON deeper than {MAX_DEPTH}")
    return tree


def read_text(tree: Mapping[str, Any], name: str) -> str | None:
    """Return a text, or None if it is absent or null."""
    value = tree.get(name)
    if value is not None and not isinstance(value, str):
        raise malformed(f"{name} is no text")
    return value


def read_hex(tree: Mapping[str, Any], name: str, size: int | None = None) -> bytes | None:
    """Return bytes that are written in hexadecimal, with 0x before them or not; None if absent, null or empty."""
    text = read_text(tree, name)
    if not text:
        return None
    match = _HEX.fullmatch(text)
    if match is None or (size is not None and len(match[1]) != 2 * size):
        raise malformed(f"{name} is not {f'{size} bytes ' if size else ''}in hexadecimal")
    return bytes.fromhex(match[1])


def read_lower_hex(tree: Mapping[str, Any], name: str, size: int) -> bytes:
    value = read_hex(tree, name, size)
    if value is None or tree[name] != value.hex():
        raise malformed(f"{name} is not {size} bytes in hexadecimal of lower case")
    return value


def read_base64(tree: Mapping[str, Any], name: str) -> bytes:
    """Return bytes that are written in the one canonical base64."""
    text = read_text(tree, name)
    try:
        value = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if not value or base64.b64encode(value).decode() != text:
        raise malformed(f"{name} is not canonical base64")
    return value


def read_object(value: Any, what: str, keys: Iterable[str] | None = None) -> dict[str, Any]:  # noqa: ANN401
    """Return an object, with exactly `keys` if they are given."""
    if not isinstance(value, dict) or (keys is not None and set(value) != set(keys)):
        exactly = "" if keys is None else " with exactly " + ", ".join(sorted(keys))
        raise malformed(f"{what} is no object{exactly}")
    return value


def read_list(value: Any, what: str, limit: int) -> list[Any]:  # noqa: ANN401 - any JSON value
    if not isinstance(value, list) or len(value) > limit:
        raise malformed(f"{what} is no list of at most {limit}")
    return value


def _members(value: Any) -> Iterable[Any]:  # noqa: ANN401 - any JSON value
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
