"""HTTP to one server of this machine: a connection for each request, so that closing it ends the request there."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from confide_protocol.errors import CapacityExceeded
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from confide_enclave.remote.errors import EngineForbidden, EngineLost, EngineMalformed, EngineRefused
from confide_enclave.remote.settings import UNIX, split_http

MAX_HEAD_BYTES: Final = 16 << 10
MAX_DOCUMENT_BYTES: Final = 4 << 20
READ_BYTES: Final = 64 << 10
_OK, _UNAUTHORIZED, _FORBIDDEN, _TOO_MANY, _SERVERS_OWN = 200, 401, 403, 429, 500


@dataclass(frozen=True)
class Client:
    """Where the server is, the key that it wants, and how long a connection may take."""

    url: str
    api_key: str = field(repr=False)
    connect_timeout_s: float

    async def get(self, path: str, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
        """Return a document. Raises: EngineError. The caller bounds the time."""
        data = b""
        async with aclosing(self._exchange("GET", path, b"")) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) > max_bytes:
                    raise EngineMalformed
        return data

    def post(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """Send JSON; yield the answer as it comes, once its status says that it is one.

        Raises: EngineError; EngineLost where it ends before its end. The caller bounds time and size, and closes.
        """
        return self._exchange("POST", path, body)

    async def _exchange(self, method: str, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        async with self._connected() as (reader, writer):
            try:
                await self._send(writer, method, path, body)
                response = _Response()
                while not response.complete:
                    data = await reader.read(READ_BYTES)
                    if not data:
                        raise EngineLost
                    for piece in response.push(data):
                        yield piece
            except OSError:
                raise EngineLost from None

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                if self.url.startswith(UNIX):
                    reader, writer = await asyncio.open_unix_connection(self.url.removeprefix(UNIX))
                else:
                    reader, writer = await asyncio.open_connection(*split_http(self.url))
        except (OSError, TimeoutError):
            raise EngineLost from None
        try:
            yield reader, writer
        finally:
            # Not a polite end: the server shall notice now.
            writer.transport.abort()

    async def _send(self, writer: asyncio.StreamWriter, method: str, path: str, body: bytes) -> None:
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        if self.api_key:
            head += f"authorization: Bearer {self.api_key}\r\n"
        if method == "POST":
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()


class _Response:
    """One response as its bytes come. Of one that is no success nothing is read: its text may quote the prompt."""

    def __init__(self) -> None:
        self.complete = False
        self._in_head, self._head_bytes = True, 0
        self._pieces: list[bytes] = []
        self._parser = HttpResponseParser(self)

    def push(self, data: bytes) -> list[bytes]:
        """Return the body's next pieces. Raises: EngineError."""
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            raise EngineMalformed from None
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            raise EngineMalformed
        if not self._in_head and (status := self._parser.get_status_code()) != _OK:
            if status == _TOO_MANY:
                raise CapacityExceeded
            if status in (_UNAUTHORIZED, _FORBIDDEN):
                raise EngineForbidden
            raise EngineLost if status >= _SERVERS_OWN else EngineRefused
        pieces, self._pieces = self._pieces, []
        return pieces

    # httptools calls these.

    def on_message_begin(self) -> None:
        if self.complete:
            raise EngineMalformed  # httptools ends with an error of its own

    def on_headers_complete(self) -> None:
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete = True
