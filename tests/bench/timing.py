"""Time several things in turns, so that whatever else the machine does meets all of them alike."""

import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def interleaved_us(works: Mapping[str, Work], *, rounds: int, calls: int) -> dict[str, float]:
    """Return the least mean time of one call over `rounds` rounds of `calls` calls each, by name."""
    least = dict.fromkeys(works, float("inf"))
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            least[name] = min(least[name], timed_us(work, calls))
    return least


def timed_us(work: Work, calls: int) -> float:
    """Return the mean time of `calls` calls in a row."""
    began_ns = time.perf_counter_ns()
    for _ in range(calls):
        work()
    return (time.perf_counter_ns() - began_ns) / calls / 1000
