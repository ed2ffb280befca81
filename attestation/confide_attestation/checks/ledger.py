"""Collect the outcomes of checks: each id once, every failure kept, nothing silently absent."""

from collections.abc import Iterable
from enum import StrEnum

from confide_attestation.result import Check, Outcome, readable

PASSED, FAILED, SKIPPED = Outcome.PASS, Outcome.FAIL, Outcome.SKIP


class Ledger:
    """The outcomes so far. A SKIP counts only if it was waived by the policy."""

    def __init__(self) -> None:
        self._checks: dict[StrEnum, Check] = {}
        self._of: dict[Outcome, set[StrEnum]] = {PASSED: set(), FAILED: set(), SKIPPED: set()}
        self._waived: set[StrEnum] = set()

    def expect(self, check_id: StrEnum, holds: bool, passed: str, failed: str) -> bool:
        """Record PASS or FAIL and return whether the check holds."""
        self._record(check_id, PASSED if holds else FAILED, passed if holds else failed)
        return holds

    def fail(self, check_id: StrEnum, detail: str) -> None:
        self._record(check_id, FAILED, detail)

    def skip(self, check_id: StrEnum, reason: str) -> None:
        """Record that a check was not made; such a check keeps an appraisal from being accepted."""
        self._record(check_id, SKIPPED, reason)

    def waive(self, check_id: StrEnum, reason: str) -> None:
        """Record that the policy waives a check, with its written reason."""
        self._record(check_id, SKIPPED, f"waived by the policy: {reason}")
        self._waived.add(check_id)

    def passed(self, check_ids: Iterable[StrEnum]) -> bool:
        return self._of[PASSED].issuperset(check_ids)

    def failed(self, check_ids: Iterable[StrEnum]) -> bool:
        """Say whether any of `check_ids` was made and failed."""
        return not self._of[FAILED].isdisjoint(check_ids)

    def holds(self, scope: Iterable[StrEnum]) -> bool:
        """Say whether every check of `scope` passed or was waived."""
        return (self._of[PASSED] | self._waived).issuperset(scope)

    def close(self, scope: Iterable[StrEnum]) -> tuple[Check, ...]:
        """Return the checks of `scope` in order; those never made are SKIP."""
        unreached = "not reached: an earlier check failed"
        return tuple([self._checks.get(name) or Check(str(name), SKIPPED, unreached) for name in scope])

    def _record(self, check_id: StrEnum, outcome: Outcome, detail: str) -> None:
        if check_id in self._checks:
            raise AssertionError(f"{check_id} is judged twice")
        self._checks[check_id] = Check(str(check_id), outcome, readable(detail))
        self._of[outcome].add(check_id)
