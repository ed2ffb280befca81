"""Time-outs that a shutdown can bring forward."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Deadlines:
    """Hands out time-outs in loop time; `stop_at` shortens every one, open or to come."""

    def __init__(self) -> None:
        self._open: set[asyncio.Timeout] = set()
        self._stop_at_s = math.inf

    @property
    def stopping(self) -> bool:
        return self._stop_at_s < math.inf

    @asynccontextmanager
    async def until(self, when_s: float) -> AsyncIterator[None]:
        """Raises: TimeoutError."""
        async with asyncio.timeout_at(min(when_s, self._stop_at_s)) as timeout:
            self._open.add(timeout)
            try:
                yield
            finally:
                self._open.discard(timeout)

    def stop_at(self, when_s: float) -> None:
        self._stop_at_s = when_s
        for timeout in self._open:
            if timeout.expired():  # but its task has not run since
                continue
            timeout.reschedule(min(when_s, timeout.when() or when_s))
