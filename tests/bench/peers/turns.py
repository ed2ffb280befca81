"""Time a peer's work in turns: a number on standard input is how many calls, the answer the microseconds of one.

Import it first: from then on what else is printed goes nowhere.
"""

import os
import sys
import time
from collections.abc import Callable

_answers, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115 - until the end


def take_turns(work: Callable[[], object]) -> None:
    """Do the work once, say so, then as often as each line says."""
    work()
    print("ready", file=_answers, flush=True)
    for line in sys.stdin:
        calls = int(line)
        began_ns = time.perf_counter_ns()
        for _ in range(calls):
            work()
        print((time.perf_counter_ns() - began_ns) / calls / 1000, file=_answers, flush=True)
