"""The words that every policy file is made of: closed, typed, without optional fields or empty lists."""

from datetime import datetime
from typing import Annotated, Literal, TypeAlias, TypeVar

from confide_protocol.settings import Settings
from pydantic import AwareDatetime, Discriminator, Field, PlainSerializer, StringConstraints, Tag

Reason: TypeAlias = Annotated[str, StringConstraints(min_length=10, max_length=400)]
Level: TypeAlias = Annotated[int, Field(ge=0, le=255)]
Hex8: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]
Hex16: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
Hex32: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Hex48: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{96}$")]
Hex64: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{128}$")]


def _unix_s(moment: datetime) -> int:
    return int(moment.timestamp())


# However a time is written, the policy's digest has it in Unix seconds.
Moment: TypeAlias = Annotated[AwareDatetime, PlainSerializer(_unix_s, return_type=int, when_used="json")]
T = TypeVar("T")
# TOML has lists only; strictness stays on for what is in them. An empty list would be trivially satisfied.
NonEmpty: TypeAlias = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]


class Waived(Settings):
    """A check that is not made, and why."""

    waived: Reason


def _shape(value: object) -> str:
    return "waived" if isinstance(value, Waived) or (isinstance(value, dict) and "waived" in value) else "set"


Waivable: TypeAlias = Annotated[Annotated[T, Tag("set")] | Annotated[Waived, Tag("waived")], Discriminator(_shape)]


def _rule(value: object) -> str:
    return "refused" if isinstance(value, str) else "accepted"


# In TOML a table accepts under conditions, the word "refused" does not.
Rule: TypeAlias = Annotated[
    Annotated[T, Tag("accepted")] | Annotated[Literal["refused"], Tag("refused")], Discriminator(_rule)
]


def _rise(value: object) -> str:
    return "never" if isinstance(value, str) else "dated"


# In TOML a table says when and what, the word "never" that a level stays.
Rises: TypeAlias = Annotated[
    Annotated[T, Tag("dated")] | Annotated[Literal["never"], Tag("never")], Discriminator(_rise)
]
