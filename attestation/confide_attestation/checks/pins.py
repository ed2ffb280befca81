"""Compare a value with those that a policy pins, or pass on why it pins none."""

from enum import StrEnum

from confide_attestation.checks.ledger import Ledger
from confide_attestation.policy_types import Waived


def check_pinned(ledger: Ledger, check_id: StrEnum, value: str, pinned: tuple[str, ...] | Waived) -> None:
    """Record whether `value` (bytes as lower-case hex) is one of `pinned`; a waiver is recorded with its reason."""
    if isinstance(pinned, Waived):
        ledger.waive(check_id, pinned.waived)
        return
    short = value if len(value) <= 32 else f"{value[:16]}…"
    wrong = f"{short} is none of the {len(pinned)} pinned values"
    ledger.expect(check_id, value in pinned, f"{short} is pinned", wrong)
