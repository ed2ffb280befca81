"""uvicorn with the limits it lacks: a bounded head, a bounded wait for it, a bounded stall, a graceful stop."""

import asyncio
import contextlib
import functools
import math
import signal
from collections.abc import Callable, Iterator
from socket import socket
from types import FrameType
from typing import Any, cast

import uvicorn
from confide_protocol import labels
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from confide_gateway.app import Gateway
from confide_gateway.settings import Limits

# What uvicorn may still take to close connections once the grace is over.
CLOSE_S = 1
SWEEP_S = 0.25
_NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
    labels.MEDIA_PROBLEM.encode(),
    len(labels.PROBLEMS[400]),
    labels.PROBLEMS[400],
)


class HeldHead(asyncio.Transport):
    """Holds an answer's head until its body is written, or the loop's next step: one system call for both."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:  # type: ignore[override]  # uvicorn writes nothing else
        if self._held:
            self._transport.write(self._held + data)
            self._held = b""
        elif data.startswith(b"HTTP/1.1 "):
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's own
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(self._held)
        self._held = b""


class GuardedProtocol(HttpToolsProtocol):
    """Drops a client that is late with a head, sends too large a one, does not read, or sends on after its answer.

    `Server` sweeps all connections by one timer; uvicorn's keep-alive timer for each is not started.
    """

    def __init__(self, limits: Limits, **arguments: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(**arguments)
        self._limits = limits
        self._in_head = True
        self._in_body = False
        self._head_bytes = 0
        self._late_at = self.loop.time() + limits.request_head_s
        self._stalled_at = math.inf

    def sweep(self, now: float) -> None:
        if now > self._late_at or now > self._stalled_at:
            self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(HeldHead(transport, self.loop))
        if len(self.connections) > self._limits.connections:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.request_head_bytes:
                self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with constant bytes, but never into another answer."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_NOT_HTTP)
            self.transport.close()
        else:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._late_at = self.loop.time() + self._limits.request_head_s

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head, self._in_body = False, True
        self._late_at = math.inf

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        if self.cycle.response_complete:
            self._late_at = self.loop.time() + self._limits.keepalive_s

    def on_response_complete(self) -> None:
        """Do what uvicorn's own does, but for its keep-alive timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._stalled_at = self.loop.time() + self._limits.write_stall_s
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        limit_s = self._limits.request_body_idle_s if self._in_body else self._limits.keepalive_s
        self._late_at = self.loop.time() + limit_s

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_at = self.loop.time() + self._limits.write_stall_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_at = math.inf


class Server(uvicorn.Server):
    """Stops in two steps: refuse what is new until all exchanges ended or the grace is over, then close."""

    def __init__(self, gateway: Gateway, limits: Limits, on_listening: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                gateway,
                http=cast(type[asyncio.Protocol], functools.partial(GuardedProtocol, limits)),
                interface="asgi3",
                ws="none",
                loop="uvloop",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=CLOSE_S,
            )
        )
        self._gateway = gateway
        self._grace_s = limits.stop_grace_s
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self._sweeping = asyncio.create_task(self._sweep())
        if not self.should_exit:
            self._on_listening()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                await self._gateway.drained()
        await super().shutdown(sockets)
        self._sweeping.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                cast(GuardedProtocol, connection).sweep(now)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals inside the loop; unlike uvicorn, end with exit status 0 when the stop went well."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._gateway.cut()
        super().handle_exit(sig, frame)
