"""Claims of a CWT: a dataclass names each one's label and the test of its value, once.

issued_unix_s: Annotated[int, Claim(6, is_time)]
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple, get_type_hints

from confide_protocol.errors import Malformed
from confide_protocol.fields import Test

EAT_PROFILE: Final = 265


class Claim(NamedTuple):
    label: int
    is_valid: Test


@cache
def claims_of(model: type) -> dict[str, Claim]:
    """List a dataclass's claims by the names of its fields."""
    hints = get_type_hints(model, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def read_claims(tree: Mapping[int, Any], model: type, profile: str) -> dict[str, Any]:
    """Read the claims of `model` out of a map; an absent one reads as None. Raises: Malformed, naming the claim.

    Does not check: that the map is closed.
    """
    if tree.get(EAT_PROFILE) != profile:
        raise Malformed("eat_profile is another")
    for name, (label, is_valid) in claims_of(model).items():
        if not is_valid(tree.get(label)):
            raise Malformed(f"{name} is not of its type or range")
    return {name: tree.get(label) for name, (label, _) in claims_of(model).items()}
