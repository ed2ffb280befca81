"""One part of the evidence, judged: what a room of vendors' checks hands to the decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from confide_attestation.result import Check

Claims: TypeAlias = Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Part:
    """Every check of one part in order, and whether all that is asked of it hold.

    `claims` are by name (cpu0, vtpm, gpu0 …), read only after their signatures held. `bound` is what the caller had
    the hardware sign, None unless its signatures hold. `not_after_unix_s` is the end of the first endorsement.
    `readable` is False if an input is not a file of its kind at all.
    """

    checks: tuple[Check, ...]
    holds: bool
    claims: Mapping[str, Claims] = field(default_factory=dict)
    bound: bytes | None = None
    not_after_unix_s: int | None = None
    readable: bool = True
