"""Keep the process's memory out of files and debuggers, as far as an unprivileged process can."""

import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """Set the core limit to zero and, on Linux, mark the process undumpable (also: no ptrace by its own user).

    Does not check: swap and hibernation, which are the guest image's to turn off.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
