"""The pool of the hot path: one asyncio.Protocol a connection, httptools as parser, last in first out."""

import asyncio
import contextlib
from collections import deque
from typing import cast

import httptools
from confide_protocol import labels
from confide_protocol.errors import ConfideError

from confide_gateway.forward import (
    BUFFER_BYTES,
    MAX_HEAD_BYTES,
    Target,
    UpstreamBusy,
    UpstreamDown,
    UpstreamError,
    UpstreamRequest,
    UpstreamTimeout,
    UpstreamUnreachable,
)

SWEEP_S = 0.25
_CONTENT_TYPE = b"content-type"
_EHBP_NONCE = labels.FIELD_EHBP_NONCE.encode()
_KEYSETS = labels.FIELD_KEYSETS.encode()
_READ = frozenset({_CONTENT_TYPE, _EHBP_NONCE, _KEYSETS})


class Exchange:
    """One request and its response: the parser's callbacks fill it, `read` empties it."""

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.status = 0
        self.content_type = self.ehbp_nonce = self.keysets = ""
        self.complete = False
        self.waiting_until: float | None = None
        self.request_sent = False
        self.pump: asyncio.Task[None] | None = None
        self.bodiless_bytes = 0
        self._fields: dict[bytes, bytes] = {}
        self._reusable = False
        self._fault: ConfideError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0

    @property
    def ended(self) -> bool:
        return self.complete and not self._chunks

    async def read(self) -> bytes:
        while not self._chunks:
            if self.complete:
                return b""
            await self.more(self.connection.pool.limits.stream_idle_s)
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if not self.complete:
            self.connection.resume()
        return data

    async def close(self) -> None:
        if self.pump is not None:
            self.pump.cancel()
        if not self.complete:
            self.fail(UpstreamError())

    def fail(self, fault: ConfideError) -> None:
        """End the exchange and its connection; whoever waits, or reads past what came, gets `fault`."""
        if self._fault is None and not self.complete:
            self._fault = fault
            self.parser = None
            self.connection.drop()
            self.wake()

    def spoil(self) -> None:
        """Take note that the node sent what is not HTTP, within the response or after it."""
        self._reusable = False
        self.fail(UpstreamError())

    def finish(self) -> None:
        """Hand the connection back once the parser has returned from the response's last byte."""
        self.parser = None
        if self._reusable and self.request_sent:
            self.connection.release()
        else:
            self.connection.drop()

    def wake(self) -> None:
        waiter, self._waiter, self.waiting_until = self._waiter, None, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def more(self, limit_s: float) -> asyncio.Future[None]:
        """Return what is done as soon as something has come; the sweep ends a wait that is too long."""
        if self._fault is not None:
            raise self._fault
        loop = self.connection.pool.loop
        self._waiter = waiter = loop.create_future()
        self.waiting_until = loop.time() + limit_s
        return waiter

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self.complete:
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return
        lower = name.lower()
        if lower in _READ:
            # A field that came twice is one list (RFC 9110 section 5.2), and none of these is to be one.
            before = self._fields.get(lower)
            self._fields[lower] = value if before is None else before + b", " + value

    def on_headers_complete(self) -> None:
        assert self.parser is not None  # noqa: S101 - it is calling us
        status = self.parser.get_status_code()
        fields, self._fields = self._fields, {}
        if status >= 200 and not self.complete:
            self.status = status
            self.content_type = fields.get(_CONTENT_TYPE, b"").decode("latin-1")
            self.ehbp_nonce = fields.get(_EHBP_NONCE, b"").decode("latin-1")
            self.keysets = fields.get(_KEYSETS, b"").decode("latin-1")

    def on_body(self, data: bytes) -> None:
        if self.complete:
            return
        self.bodiless_bytes = 0
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered >= BUFFER_BYTES:
            self.connection.pause()

    def on_message_complete(self) -> None:
        if self.status and not self.complete:
            assert self.parser is not None  # noqa: S101 - it is calling us
            self.complete = True
            self._reusable = self.parser.should_keep_alive()


class Connection(asyncio.Protocol):
    """One connection to the node, carrying at most one exchange at a time."""

    def __init__(self, pool: "OwnPool") -> None:
        self.pool = pool
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._writable: asyncio.Future[None] | None = None

    def start(self, head: bytes) -> Exchange:
        if self._transport is None or self._transport.is_closing():
            raise UpstreamError
        self.exchange = Exchange(self)
        self.pool.active.add(self)
        self._transport.write(head)
        return self.exchange

    async def write(self, data: bytes) -> None:
        """Write, and wait until the node takes more."""
        if self._transport is None or self._transport.is_closing():
            raise UpstreamError
        self._transport.write(data)
        if self._writable is not None:
            async with asyncio.timeout(self.pool.limits.stream_idle_s):
                await asyncio.shield(self._writable)

    def pause(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def release(self) -> None:
        self.exchange = None
        self.pool.active.discard(self)
        if not self._reading:
            self.resume()
        self.idle_since = self.pool.loop.time()
        self.pool.idle.append(self)

    def drop(self) -> None:
        self.exchange = None
        self.pool.active.discard(self)
        if self._transport is not None:
            self._transport.abort()

    # asyncio's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream socket's; uvloop's transports are not registered as asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or exchange.parser is None:
            self.drop()
            return
        exchange.bodiless_bytes += len(data)
        try:
            exchange.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            exchange.spoil()
        if exchange.complete:
            exchange.finish()
        elif exchange.bodiless_bytes > MAX_HEAD_BYTES:
            exchange.spoil()
        exchange.wake()

    def pause_writing(self) -> None:
        self._writable = self.pool.loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        if self.exchange is not None:
            self.exchange.fail(UpstreamError())
        else:
            with contextlib.suppress(ValueError):
                self.pool.idle.remove(self)


class OwnPool:
    """Keep-alive connections to one node. Time-outs are exact to a quarter of a second."""

    def __init__(self, target: Target) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = target.limits
        self.active: set[Connection] = set()
        self.idle: deque[Connection] = deque()
        self._target = target
        self._opening = 0
        self._fixed = f" HTTP/1.1\r\nhost: {target.authority}\r\nauthorization: Bearer {target.secret}\r\n"
        self._sweeper = self.loop.create_task(self._sweep())

    async def send(self, request: UpstreamRequest) -> Exchange:
        """Send on the connection used last. Sealed bytes go out at most once; a GET may be asked again."""
        connection = self._take()
        reused = connection is not None
        exchange = self._start(connection or await self._connect(), request)
        try:
            while not exchange.status:
                await exchange.more(self.limits.first_byte_s)
        except BaseException as fault:
            await exchange.close()
            if reused and request.method == "GET" and type(fault) is UpstreamError:
                return await self._again(request)
            raise
        return exchange

    async def _again(self, request: UpstreamRequest) -> Exchange:
        """Repeat on a connection of its own what a node may have missed by closing the old one."""
        while self.idle:
            self.idle.pop().drop()
        return await self.send(request)

    async def aclose(self) -> None:
        self._sweeper.cancel()
        for connection in (*self.idle, *self.active):
            if connection.exchange is None:
                connection.drop()
            else:
                connection.exchange.fail(UpstreamError())

    def _start(self, connection: Connection, request: UpstreamRequest) -> Exchange:
        fields = "".join([f"{name}: {value}\r\n" for name, value in request.fields])
        length = (
            "transfer-encoding: chunked" if request.rest is not None else f"content-length: {len(request.body)}"
        )
        head = f"{request.method} {request.path}{self._fixed}{fields}{length}\r\n\r\n".encode("latin-1")
        if request.rest is None:
            exchange = connection.start(head + request.body)
            exchange.request_sent = True
        else:
            exchange = connection.start(head + _chunk(request.body))
            exchange.pump = self.loop.create_task(self._pump(exchange, request))
        return exchange

    async def _pump(self, exchange: Exchange, request: UpstreamRequest) -> None:
        """Send the rest of the body as it comes; whatever stops it ends the exchange."""
        assert request.rest is not None  # noqa: S101 - only then is there a pump
        try:
            async for piece in request.rest:
                await exchange.connection.write(_chunk(piece))
            await exchange.connection.write(b"0\r\n\r\n")
            exchange.request_sent = True
        except TimeoutError:
            exchange.fail(UpstreamTimeout())
        except ConfideError as fault:
            exchange.fail(fault)

    def _take(self) -> Connection | None:
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        if len(self.active) + self._opening >= self.limits.node_exchanges:
            raise UpstreamBusy
        self._opening += 1
        target = self._target
        try:
            async with asyncio.timeout(self.limits.connect_s):
                _, connection = await self.loop.create_connection(
                    lambda: Connection(self), target.host, target.port, ssl=target.tls
                )
        except ConnectionRefusedError:
            raise UpstreamDown from None
        except (OSError, TimeoutError):
            raise UpstreamUnreachable from None
        finally:
            self._opening -= 1
        return connection

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self.loop.time()
            while self.idle and now - self.idle[0].idle_since > self.limits.node_keepalive_s:
                self.idle.popleft().drop()
            for connection in list(self.active):
                exchange = connection.exchange
                if exchange is not None and exchange.waiting_until is not None and now > exchange.waiting_until:
                    exchange.fail(UpstreamTimeout())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
