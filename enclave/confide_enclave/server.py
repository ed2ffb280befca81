"""uvicorn with what it lacks: limits on a request's head, a ready line, a grace for sealed answers."""

import asyncio
import json
import math
import signal
import socket
import sys
import threading
from asyncio import Transport
from collections.abc import Mapping
from typing import Final

import uvicorn
from confide_protocol.errors import ConfigError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from confide_enclave.reload import Reloader
from confide_enclave.serving import SEAL_MARGIN_S, Enclave
from confide_enclave.settings import Limits

MAX_HEAD_BYTES: Final = 16 * 1024
KEEP_ALIVE_S: Final = 75
BACKLOG: Final = 1024


def bind(file: str, host: str, port: int) -> socket.socket:
    """Take the port before anything slow is loaded. Raises: ConfigError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as fault:
        raise ConfigError(
            file, "listen", f"{host}:{port} cannot be bound ({fault.strerror}); choose another port, or 0 for any"
        ) from None
    return listener


def serve(
    app: Enclave,
    listener: socket.socket,
    limits: Limits,
    ready: Mapping[str, str],
    reloader: Reloader | None = None,
    asked: threading.Event | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or an engine is lost; once calls are taken `ready` is printed, with the URL.

    It is one line of JSON. With a `reloader` SIGHUP reads the settings again, from then on. `asked` is set by one
    that came before: they are read again at once.
    """

    class Http(_BoundedHttp):
        header_timeout_s = limits.header_timeout_s
        max_body_bytes = 2 * limits.max_request_bytes

    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn handles both, then raises them once more for whoever was there before it: nobody.
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        http=Http,
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(limits.shutdown_grace_s) + SEAL_MARGIN_S,
    )
    _Server(config, app, ready, reloader, asked).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        app: Enclave,
        ready: Mapping[str, str],
        reloader: Reloader | None,
        asked: threading.Event | None,
    ) -> None:
        super().__init__(config)
        self._app, self._ready, self._reloader, self._asked = app, ready, reloader, asked
        self._reloading: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._reloader is not None:
            self._reloading = asyncio.create_task(self._reloader.run())
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reloader.ask)
            if self._asked is not None and self._asked.is_set():
                self._reloader.ask()
        host, port = (sockets or [])[0].getsockname()[:2]
        line = {"ready": True, "url": f"http://{f'[{host}]' if ':' in host else host}:{port}", **self._ready}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._app.lost

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._reloading is not None:
            self._reloading.cancel()
        self._app.stop()
        await super().shutdown(sockets)


class _BoundedHttp(HttpToolsProtocol):
    """Close a connection whose request head is too long or too slow, or whose body and trailers have no end."""

    header_timeout_s: float
    max_body_bytes: int  # as it lies on the wire, chunk framing included

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._received_bytes += len(data)
        if self._received_bytes > MAX_HEAD_BYTES + (0 if self._in_head else self.max_body_bytes):
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._end_head()
        self._begin_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def _begin_head(self) -> None:
        self._in_head, self._received_bytes = True, 0
        self._timer = self.loop.call_later(self.header_timeout_s, self.transport.abort)

    def _end_head(self) -> None:
        self._in_head = False
        self._timer.cancel()
