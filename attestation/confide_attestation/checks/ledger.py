"""Collect the outcomes of checks: each id once, every failure kept, nothing silently absent."""

from collections.abc import Iterable
from enum import StrEnum

from confide_attestation.result import Check, Outcome


class Ledger:
    """The outcomes so far. A SKIP counts only if it was waived by the policy."""

    def __init__(self) -> None:
        self._checks: dict[StrEnum, Check] = {}
        self._waived: set[StrEnum] = set()

    def expect(self, check_id: StrEnum, holds: bool, passed: str, failed: str) -> bool:
        """Record PASS or FAIL and return whether the check holds."""
        self._record(check_id, Outcome.PASS if holds else Outcome.FAIL, passed if holds else failed)
        return holds

    def fail(self, check_id: StrEnum, detail: str) -> None:
        self._record(check_id, Outcome.FAIL, detail)

    def skip(self, check_id: StrEnum, reason: str) -> None:
        """Record that a check was not made; such a check keeps an appraisal from being accepted."""
        self._record(check_id, Outcome.SKIP, reason)

    def waive(self, check_id: StrEnum, reason: str) -> None:
        """Record that the policy waives a check, with its written reason."""
        self._record(check_id, Outcome.SKIP, f"waived by the policy: {reason}")
        self._waived.add(check_id)

    def passed(self, check_ids: Iterable[StrEnum]) -> bool:
        return all(
            check_id in self._checks and self._checks[check_id].outcome is Outcome.PASS for check_id in check_ids
        )

    def failed(self, check_ids: Iterable[StrEnum]) -> bool:
        """Say whether any of `check_ids` was made and failed."""
        return any(
            check_id in self._checks and self._checks[check_id].outcome is Outcome.FAIL for check_id in check_ids
        )

    def holds(self, scope: Iterable[StrEnum]) -> bool:
        """Say whether every check of `scope` passed or was waived."""
        return all(check_id in self._waived or self.passed((check_id,)) for check_id in scope)

    def close(self, scope: Iterable[StrEnum]) -> tuple[Check, ...]:
        """Return the checks of `scope` in order; those never made are SKIP."""
        unreached = "not reached: an earlier check failed"
        return tuple(
            self._checks.get(check_id) or Check(check_id.value, Outcome.SKIP, unreached) for check_id in scope
        )

    def _record(self, check_id: StrEnum, outcome: Outcome, detail: str) -> None:
        if check_id in self._checks:
            raise AssertionError(f"{check_id} is judged twice")
        self._checks[check_id] = Check(check_id.value, outcome, detail)
