"""Mutate accepted evidence, field by field: a verifier has to refuse every mutation, and say why.

`make conformance` runs it. Every byte of every file belongs to one field. A field either names the checks of which
at least one has to fail when it is changed, or says why it may be changed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

FLIPS_A_FILE = 4000


@dataclass(frozen=True)
class Field:
    """A run of bytes of one file; `checks` is empty exactly if `dont_care` says why.

    `hex_text`: letters of hexadecimal are left in their case, which carries nothing.
    """

    name: str
    start: int
    end: int
    checks: frozenset[str] = frozenset()
    dont_care: str = ""
    hex_text: bool = False

    @property
    def size(self) -> int:
        return self.end - self.start

    def moved(self, by: int, prefix: str = "") -> "Field":
        return replace(self, name=prefix + self.name, start=self.start + by, end=self.end + by)


Layout = tuple[Field, ...]


@dataclass(frozen=True)
class Mutation:
    """One change of a case's files; a file that is None is left out."""

    kind: str
    name: str
    changed: Mapping[str, bytes | None]
    checks: frozenset[str] = frozenset()
    dont_care: str = ""
    now_unix_s: int | None = None
    nonce: bytes | None = None


@dataclass(frozen=True)
class Judged:
    """A verifier's answer; `failed` and `claims` are None if it does not say."""

    refused: bool
    failed: frozenset[str] | None = None
    claims: Any = None


Files = Mapping[str, bytes]
Judge = Callable[[Files, int, bytes], Judged]


@dataclass(frozen=True)
class Case:
    """One piece of evidence that is accepted as it stands; cases of one `platform` may stand in for one another.

    `more` are its mutations beside flips and swaps; `roots` the simulated vendor's, for verifiers that take them.
    `max_flips` bounds the sample of one file's flips.
    """

    name: str
    kind: str
    files: Files
    layouts: Mapping[str, Layout]
    now_unix_s: int
    judge: Judge = field(repr=False)
    nonce: bytes
    real: bool
    platform: str
    more: Sequence[Mutation]
    roots: Files = field(default_factory=dict)
    max_flips: int = FLIPS_A_FILE


def checks(*names: str) -> frozenset[str]:
    return frozenset(names)


def uncovered(layout: Layout, size: int) -> list[tuple[int, int]]:
    """Return the runs of bytes that belong to no field, or to two."""
    wrong, at = [], 0
    for each in sorted(layout, key=lambda f: f.start):
        if each.start != at:
            wrong.append((min(at, each.start), max(at, each.start)))
        if bool(each.checks) == bool(each.dont_care):
            wrong.append((each.start, each.end))
        at = each.end
    return wrong if at == size else [*wrong, (min(at, size), max(at, size))]
