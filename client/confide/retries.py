"""The retries of a library above us: openai's, and of every SDK made like it, ask again when a transport raised.

Each retry would be sealed anew. One that follows a try of which sealed bytes may have left is refused: what may be
sent again, `confide.delivery` has sent again. So is one that follows a signed failure of a call that was run.
"""

import hashlib
from collections import deque
from typing import Any

from confide_protocol.errors import ConfideError

from confide.errors import OutcomeUnknown

COUNT = "x-stainless-retry-count"
MAX_ENDS = 1024
# Signed statuses that say "not now": a retry is as good as a first try.
RETRIED = frozenset({429, 503})


class Ends:
    """How the latest calls of such libraries ended that an enclave may have run; no word of them is kept."""

    def __init__(self) -> None:
        self._ends: deque[tuple[bytes, ConfideError]] = deque(maxlen=MAX_ENDS)

    def demand_first(self, request: Any) -> None:  # noqa: ANN401
        """Let a first try pass, and a retry unless the try before may have been run. Raises: how that one ended."""
        if request.headers.get(COUNT, "0") == "0":
            return
        key = _key(request)
        for ended, fault in reversed(list(self._ends)):
            if ended == key:
                raise _anew(fault)

    def note(self, request: Any, fault: Exception) -> None:  # noqa: ANN401
        """Take note of how a call ended of which sealed bytes may have left."""
        if COUNT in request.headers:
            kept = _anew(fault) if isinstance(fault, ConfideError) else OutcomeUnknown()
            self._ends.append((_key(request), kept))


def _anew(fault: ConfideError) -> ConfideError:
    """Copy an error, but for the traceback, whose frames hold the prompt. Its class's constructor may want more."""
    made = type(fault).__new__(type(fault), *fault.args)
    made.__dict__.update(fault.__dict__)
    return made


def _key(request: Any) -> bytes:  # noqa: ANN401
    return hashlib.sha256(f"{request.method} {request.url}\n".encode() + request.content).digest()
