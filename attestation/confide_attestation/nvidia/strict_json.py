"""Parse JSON in which nothing can be said twice; makes no trust claim."""

import json
from collections.abc import Iterable
from typing import Any

from confide_attestation.errors import EvidenceMalformed

MAX_DEPTH = 16


def parse_json(data: bytes, max_bytes: int) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse UTF-8 JSON without repeated keys, NaN or infinities. Raises: EvidenceMalformed."""
    if len(data) > max_bytes:
        raise EvidenceMalformed(f"JSON of {len(data)} bytes is too large; at most {max_bytes}")
    try:
        tree = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError):
        raise EvidenceMalformed("not JSON, or with a key said twice") from None
    level = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for each in level for child in _members(each)]
    if level:
        raise EvidenceMalformed(f"JSON deeper than {MAX_DEPTH}")
    return tree


def _members(value: Any) -> Iterable[Any]:  # noqa: ANN401 - parsed JSON
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("repeated key")
    return found


def _constant(_: str) -> None:
    raise ValueError("no number")
