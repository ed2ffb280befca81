"""Read JSON that others wrote: UTF-8 text, every name once, text that can be written down again."""

import json
from collections.abc import Sequence
from typing import Any

from confide_attestation.errors import EvidenceMalformed


def load_json(data: bytes, check: str, form: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """Parse one JSON document; `form` says in a fault which one was expected.

    Raises: EvidenceMalformed with `check`. Does not check: the document's form, its size.
    """
    try:
        tree = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
        json.dumps(tree, ensure_ascii=False).encode("utf-8")  # a lone surrogate is no text
    except UnicodeError:
        raise EvidenceMalformed(f"expected JSON text{form}, found bytes that are no text (UTF-8)", check) from None
    except (ValueError, RecursionError):
        raise EvidenceMalformed(f"expected JSON text{form} with every name once, found other text", check) from None
    return tree


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a name is there twice")
    return tree


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
