"""Connections to the gateway: a pool for each event loop, none shared with a child, none older than a sleep."""

import asyncio
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from confide.process import begin_in_children

# The machine slept, or its clock was set: in both cases new connections cost little.
SLEPT_S = 30.0


class Pools:
    """Makes a pool where there is none that may be used now. `make` gives one; its connections open by need.

    Connections belong to the event loop that opened them. After a sleep of the machine the other end has long
    forgotten them and nobody would say so; a sleep shows in the clock of the wall running ahead of the other.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._sync: Any = None
        self._loops: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._abandoned: list[Any] = []
        self._ahead_s = time.time() - time.monotonic()
        begin_in_children(self)

    def begin_process(self) -> None:
        # The parent's pools are kept, unused: to close them could say goodbye to the gateway in the parent's name.
        self._abandoned += [self._sync, *self._loops.values()]
        self._sync, self._loops = None, WeakKeyDictionary()

    def sync(self) -> Any:  # noqa: ANN401
        """Return the pool of this process's threads."""
        self._wake()
        if self._sync is None:
            self._sync = self._make()
        return self._sync

    def of_loop(self) -> Any:  # noqa: ANN401
        """Return the pool of the running event loop, asyncio's or trio's."""
        self._wake()
        loop = _running()
        pool = self._loops.get(loop)
        if pool is None:
            # A closed loop's connections are dead, and would keep it alive.
            self._loops = WeakKeyDictionary({each: kept for each, kept in self._loops.items() if not _closed(each)})
            pool = self._loops[loop] = self._make()
        return pool

    def drop(self) -> Any:  # noqa: ANN401
        """Forget the threads' pool and return it, for closing; None where there is none."""
        pool, self._sync = self._sync, None
        return pool

    def drop_loop(self) -> Any:  # noqa: ANN401
        """Forget the running loop's pool and return it, for closing; None where there is none."""
        return self._loops.pop(_running(), None)

    def _wake(self) -> None:
        ahead_s = time.time() - time.monotonic()
        if ahead_s - self._ahead_s > SLEPT_S:
            # Answers under way keep their own connections, and the pool with them.
            self._sync = None
            self._loops = WeakKeyDictionary()
        self._ahead_s = ahead_s


def _closed(loop: Any) -> bool:  # noqa: ANN401
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()


def _running() -> Any:  # noqa: ANN401
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        import trio  # type: ignore[import-not-found,unused-ignore]  # who runs no loop of asyncio's has it

        return trio.lowlevel.current_trio_token()
