"""A forked child that says yes or no."""

import os
import signal
import traceback
from collections.abc import Callable

LIMIT_S = 20


def in_child(question: Callable[[], bool]) -> bool:
    """Ask in a child process; an error there, or silence, is a no."""
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT_S)
        said = False
        try:
            said = question()
        except BaseException:  # noqa: BLE001 - the child has nobody else to tell
            traceback.print_exc()
        finally:
            os._exit(0 if said else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
