"""What a process serves: one application at a time, and none between two of them or after a reload that failed."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Protocol

import structlog
from confide_protocol import labels

from confide_enclave.app import HEALTHY, ClientLeft, EnclaveApp, Message, Receive, Reply, Send, path_template

SEAL_MARGIN_S: Final = 2  # after the grace, to seal and send what was cut short
RETRY_AFTER_S: Final = 5
_RETRY: Final = ((b"retry-after", b"%d" % RETRY_AFTER_S),)
log = structlog.get_logger(__name__)


class Part(Protocol):
    """What is closed with the process: an engine, an encoder. One that is lost only works again in another one."""

    lost: bool

    async def close(self) -> None: ...


class Enclave:
    """The ASGI application of a process. While nothing is served, all but its health is answered 503."""

    def __init__(self, app: EnclaveApp, parts: Iterable[Part]) -> None:
        self.parts = list(parts)
        self._app: EnclaveApp | None = app
        self._taking = True
        self._calls: set[asyncio.Task[object]] = set()

    @property
    def serving(self) -> bool:
        return self._taking

    @property
    def lost(self) -> bool:
        return any(part.lost for part in self.parts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http" and self._app is not None and self._taking:
            call = asyncio.current_task()
            assert call is not None  # noqa: S101 - the server makes one for each request
            self._calls.add(call)
            begun = False

            async def noting(message: Message) -> None:
                nonlocal begun
                begun = True
                await send(message)

            try:
                await self._app(scope, receive, noting)
            except asyncio.CancelledError:
                if self.serving or begun:
                    raise
                call.uncancel()
                await _refuse(send)  # cut at the end of a drain, before its head
            finally:
                self._calls.discard(call)
        elif scope["type"] == "http":
            await self._idle(scope, send)

    def stop(self) -> None:
        """Give the answers in progress their grace; what is not done by then ends sealed, as aborted."""
        if self._app is not None:
            self._app.stop()

    def doubt_gpus(self) -> None:
        """Give no evidence until the GPUs have passed the enclave's own check again."""
        if self._app is not None:
            self._app.doubt_gpus()

    async def drain(self, grace_s: float) -> None:
        """Take nothing new, let what is in progress end within the grace, and destroy the keys with the rest.

        What a slow reader has not taken shortly after that is cut.
        """
        self._taking = False
        if self._app is None:
            return
        self._app.stop()
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=grace_s + SEAL_MARGIN_S)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        app, self._app = self._app, None
        await app.close()

    def serve(self, app: EnclaveApp) -> None:
        """Begin with an application; the one before it was drained."""
        assert self._app is None  # noqa: S101 - two would share engines
        self._app, self._taking = app, True
        app.start()

    async def _idle(self, scope: Message, send: Send) -> None:
        """Answer while nothing is served: it lives, and is not ready."""
        lives = (scope["path"], scope["method"]) == (labels.PATH_HEALTH, "GET")
        log.info("request", path=path_template(scope["path"]), status=200 if lives else 503)
        if lives:
            await Reply(send, SEAL_MARGIN_S).whole(200, b"application/json", HEALTHY)
        else:
            await _refuse(send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        if self._app is not None:
            self._app.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._app is not None:
            await self._app.close()
        for part in self.parts:
            await part.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _refuse(send: Send) -> None:
    with suppress(ClientLeft):
        await Reply(send, SEAL_MARGIN_S).problem(503, _RETRY)
