"""The outcome of an appraisal: every check with its reason, and the keyset if all that is required holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from confide_protocol.keyset import Keyset, Manifest

MAX_DETAIL_CHARS: Final = 500
_UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"


class Outcome(StrEnum):
    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    SKIP = "SKIP"


class Verdict(StrEnum):
    """`authentic` is a verdict without a policy: signatures hold, nothing was appraised."""

    AUTHENTIC = "authentic"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNREADABLE = "unreadable"


class Check(NamedTuple):
    """One step of an appraisal. `id` is shared by SPEC, code, CLI and vectors; `detail` is for a person."""

    id: str
    outcome: Outcome
    detail: str


def readable(detail: str) -> str:
    """Return a detail as a terminal or log may show it: parts of it can be a peer's, of any form and length."""
    if len(detail) > MAX_DETAIL_CHARS:
        detail = detail[: MAX_DETAIL_CHARS - 1] + "…"
    if detail.isprintable():
        return detail
    return "".join(each if each.isprintable() else _UNPRINTABLE for each in detail)


@dataclass(frozen=True)
class AttestedKeyset:
    """A keyset that passed an appraisal: the only thing that a client can seal to. Only `appraise` makes one."""

    keyset: Keyset
    manifest: Manifest
    statement_digest: bytes
    policy_digest: bytes
    result_digest: bytes
    valid_until_unix_s: int


@dataclass(frozen=True)
class AttestationResult:
    """All checks in order, the claims that were read after their signature held, and what follows from them.

    `keyset` is None unless `verdict` is ACCEPTED.
    """

    verdict: Verdict
    checks: tuple[Check, ...]
    claims: Mapping[str, Mapping[str, str | int | bool]]
    simulated: bool
    policy_id: str | None
    policy_digest: bytes | None
    judged_at_unix_s: int
    keyset: AttestedKeyset | None = field(default=None)

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome is Outcome.FAIL)
