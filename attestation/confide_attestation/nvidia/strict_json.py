"""Parse JSON of bounded size and depth; makes no trust claim."""

from collections.abc import Iterable
from typing import Any

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.strict_json import load_json

MAX_DEPTH = 16


def parse_json(data: bytes, max_bytes: int) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse JSON in which no name is there twice. Raises: EvidenceMalformed."""
    if len(data) > max_bytes:
        raise EvidenceMalformed(f"JSON of {len(data)} bytes is too large; at most {max_bytes}")
    tree = load_json(data, "format")
    level = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for each in level for child in _members(each)]
    if level:
        raise EvidenceMalformed(f"JSON deeper than {MAX_DEPTH}")
    return tree


def _members(value: Any) -> Iterable[Any]:  # noqa: ANN401 - parsed JSON
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
