"""Who notices that a client left while its exchange waits for the node."""

import asyncio

from confide_protocol.errors import ConfideError

from confide_gateway.asgi import Receive

TICK_S = 0.04


class ClientGone(ConfideError):
    """Nobody is there to be answered; the status is for counts and logs."""

    code = "client_gone"
    http_status = 499
    reason = "the client left"


class BodyTimeout(ConfideError):
    code = "body_timeout"
    http_status = 408
    reason = "the client's body came too slowly"


class Watch:
    """Cancels the exchange of a client that left, or that does not begin its body.

    It does nothing until it is looked at for the first time, so that quick exchanges cost no second task.
    """

    def __init__(self, receive: Receive, body_idle_s: float) -> None:
        self.fault: ConfideError | None = None
        self._receive = receive
        self._body_idle_s = body_idle_s
        self._exchange = asyncio.current_task()
        self._body_begun = self._body_complete = self._looked = False
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def body(self, *, complete: bool) -> None:
        """Take note that the body began, or ended: only then may the watcher ask for the client's next message."""
        self._body_begun, self._body_complete = True, complete
        if self._looked:
            self.look()

    def look(self) -> None:
        self._looked = True
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        if self._body_complete:
            self._watcher = loop.create_task(self._wait())
        elif not self._body_begun:
            self._timer = loop.call_later(self._body_idle_s, self._end, BodyTimeout())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end(ClientGone())

    def _end(self, fault: ConfideError) -> None:
        assert self._exchange is not None  # noqa: S101 - made inside a task
        self.fault = fault
        self._exchange.cancel()


class WatchRoom:
    """Looks at each watch once, 40 to 80 ms after it came in, by one timer for all."""

    def __init__(self) -> None:
        self._young: set[Watch] = set()
        self._old: set[Watch] = set()
        self._ticking = False

    def add(self, watch: Watch) -> None:
        self._young.add(watch)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def remove(self, watch: Watch) -> None:
        self._young.discard(watch)
        self._old.discard(watch)
        watch.stop()

    def _tick(self) -> None:
        for watch in self._old:
            watch.look()
        self._old, self._young = self._young, set()
        self._ticking = bool(self._old)
        if self._ticking:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)
