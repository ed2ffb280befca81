"""Fair shares by account label: who may enter, and how a step's prompt tokens are split. Pure integers."""

from collections import Counter
from collections.abc import Mapping

from confide_protocol.errors import CapacityExceeded

QUANTUM_TOKENS = 64


class Admission:
    """Counts the requests in the engine, in all and by account. Not for several threads."""

    def __init__(self, per_account: int, in_all: int) -> None:
        self._per_account, self._in_all = per_account, in_all
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def enter(self, account: str) -> None:
        """Let one more in. Raises: CapacityExceeded."""
        if self._counts.total() >= self._in_all or self._counts[account] >= self._per_account:
            raise CapacityExceeded
        self._counts[account] += 1

    def leave(self, account: str) -> None:
        self._counts[account] -= 1
        if not self._counts[account]:
            del self._counts[account]


class DeficitRoundRobin:
    """Splits budgets over accounts in turns (Shreedhar and Varghese, 1995).

    Over any stretch of time in which two accounts both always want tokens, what they were given differs by at
    most QUANTUM_TOKENS. An account that wants nothing loses what it saved.
    """

    def __init__(self) -> None:
        self._deficits: dict[str, int] = {}  # in the order of turns; the first account's turn is now

    def share(self, wanted: Mapping[str, int], budget: int) -> dict[str, int]:
        """Give each account at most what it wants, all together `budget` if they want as much."""
        wants = {account: tokens for account, tokens in wanted.items() if tokens > 0}
        self._deficits = {a: d for a, d in self._deficits.items() if a in wants}
        for account in wants:
            self._deficits.setdefault(account, 0)
        given = dict.fromkeys(wants, 0)
        while budget and self._deficits:
            account, deficit = next(iter(self._deficits.items()))
            if not deficit:
                deficit = QUANTUM_TOKENS
            part = min(deficit, wants[account] - given[account], budget)
            given[account] += part
            budget -= part
            del self._deficits[account]
            if given[account] == wants[account]:
                continue
            if deficit > part:  # the budget ended amid its turn
                self._deficits = {account: deficit - part} | self._deficits
            else:
                self._deficits[account] = 0
        return {account: tokens for account, tokens in given.items() if tokens}
