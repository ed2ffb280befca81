"""A node's HTTP side on a real loopback socket, with every way to misbehave; bodies are opaque to it."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from confide_protocol import labels


@dataclass
class Seen:
    """One request as it came: what a gateway let through."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    pieces: list[bytes] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


class Call:
    """One request under way; a behaviour answers it by these methods or by raw bytes."""

    def __init__(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen, self.reader, self.writer = seen, reader, writer

    async def read_body(self) -> bytes:
        """Read the whole body, chunked or not."""
        async for piece in self._pieces():
            self.seen.pieces.append(piece)
            self.seen.body += piece
        return self.seen.body

    async def _pieces(self):
        if self.seen.header("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readline()
        elif size := int(self.seen.header("content-length") or 0):
            yield await self.reader.readexactly(size)

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, body: bytes, status: int = 200, media: str = labels.MEDIA_RESPONSE, **fields: str
    ) -> None:
        """Answer with a length."""
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {media}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        await self.raw(head.encode() + body)

    async def start(self, status: int = 200, media: str = labels.MEDIA_RESPONSE) -> None:
        """Begin an answer in chunks."""
        head = (
            f"HTTP/1.1 {status} X\r\ncontent-type: {media}\r\nset-cookie: a=b\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await self.raw(head.encode())

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def until_closed(self) -> None:
        """Wait until the other side closes."""
        while await self.reader.read(65536):
            pass


Behaviour = Callable[[Call], Awaitable[None]]


class FakeUpstream:
    """`behaviour` answers whatever has no `routes` entry for its path; returning leaves the connection open."""

    def __init__(
        self, behaviour: Behaviour, routes: dict[str, Behaviour] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.behaviour = behaviour
        self.routes = routes or {}
        self.tls = tls
        self.seen: list[Seen] = []
        self.connections = 0
        self.open = 0
        self.cancelled = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sealed(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path.startswith(labels.PATH_OHTTP)]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        self._server = await asyncio.start_server(
            self._connection, "127.0.0.1", self.port, limit=1 << 20, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.cancelled.set()
        except asyncio.CancelledError:
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        method, path, _ = head[0].split(" ")
        fields = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in head[1:-2])]
        call = Call(Seen(method, path, fields), reader, writer)
        self.seen.append(call.seen)
        await self.routes.get(path.partition("?")[0], self.behaviour)(call)
        return not writer.is_closing()


async def echo(call: Call) -> None:
    """Answer with the request's own body and a length."""
    await call.answer(await call.read_body())


def answering(body: bytes, status: int = 200, media: str = labels.MEDIA_RESPONSE) -> Behaviour:
    async def behaviour(call: Call) -> None:
        await call.read_body()
        await call.answer(body, status, media)

    return behaviour


def paced(chunks: list[bytes], pause_s: float = 0.0) -> Behaviour:
    """Answer in chunks, one every `pause_s`."""

    async def behaviour(call: Call) -> None:
        await call.read_body()
        await call.start()
        for data in chunks:
            await call.chunk(data)
            await asyncio.sleep(pause_s)
        await call.end()

    return behaviour


async def stall(call: Call) -> None:
    """Take the request and say nothing until the other side gives up."""
    await call.read_body()
    await call.until_closed()
    raise ConnectionError


def stall_after(chunks: list[bytes]) -> Behaviour:
    """Send some chunks, then nothing until the other side gives up."""

    async def behaviour(call: Call) -> None:
        await call.read_body()
        await call.start()
        for data in chunks:
            await call.chunk(data)
        await call.until_closed()
        raise ConnectionError

    return behaviour


def drop_after(chunks: list[bytes]) -> Behaviour:
    """Close the connection in the middle of a chunked answer."""

    async def behaviour(call: Call) -> None:
        await call.read_body()
        await call.start()
        for data in chunks:
            await call.chunk(data)
        call.writer.close()

    return behaviour


def sending(data: bytes, *, close: bool = False) -> Behaviour:
    """Answer with raw bytes."""

    async def behaviour(call: Call) -> None:
        await call.read_body()
        await call.raw(data)
        if close:
            call.writer.close()

    return behaviour


async def never_reads(call: Call) -> None:
    """Leave the request's body where it is."""
    await asyncio.sleep(3600)
