"""Say at the end of the run how many published vectors passed, and why the others do not apply."""

from collections import Counter
from collections.abc import Callable

import pytest

Tally = Callable[[str, str | None], None]
_TALLY = pytest.StashKey[dict[str, Counter[str]]]()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Count one vector of a file: as passed, or as not applicable with its reason."""
    counts = request.config.stash.setdefault(_TALLY, {})

    def count(file: str, reason: str | None = None) -> None:
        counts.setdefault(file, Counter())[f"not applicable: {reason}" if reason else "passed"] += 1

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(_TALLY, {})
    if counts:
        terminalreporter.section("published vectors")
    for file, outcomes in sorted(counts.items()):
        for outcome, number in sorted(outcomes.items(), reverse=True):
            terminalreporter.line(f"{number:5} {file}: {outcome}")
