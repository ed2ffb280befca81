"""The own connection pool against a node on a real socket, in every way that one can misbehave."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from confide_gateway.forward import (
    BUFFER_BYTES,
    Target,
    UpstreamBusy,
    UpstreamError,
    UpstreamRequest,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from confide_gateway.forward.own import OwnPool
from confide_gateway.settings import Limits

from tests.fakes import upstream as fake
from tests.fakes.upstream import FakeUpstream

pytestmark = pytest.mark.anyio
SECRET = "s" * 40
POST = UpstreamRequest("POST", "/ohttp/x", (), b"sealed")


def pool_for(node: FakeUpstream, **limits) -> OwnPool:
    return OwnPool(Target("127.0.0.1", node.port, f"127.0.0.1:{node.port}", SECRET, Limits(**limits)))


async def read_all(pool: OwnPool, request: UpstreamRequest = POST) -> bytes:
    response = await pool.send(request)
    try:
        data = b""
        while not response.ended:
            data += await response.read()
        return data
    finally:
        await response.close()


async def pieces(*parts: bytes, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(pause_s)
        yield part


async def test_a_connection_is_used_again() -> None:
    """Two exchanges in a row share one connection."""
    async with FakeUpstream(fake.echo) as node:
        pool = pool_for(node)
        assert await read_all(pool) == b"sealed"
        assert await read_all(pool) == b"sealed"
        assert node.connections == 1
        await pool.aclose()


async def test_the_connection_used_last_is_used_first() -> None:
    """Of two idle connections the younger one carries the next exchange, so that the older one may age out."""
    async with FakeUpstream(fake.paced([b"a"], 0.05)) as node:
        pool = pool_for(node)
        await asyncio.gather(read_all(pool), read_all(pool))
        youngest = pool.idle[-1]
        await read_all(pool)
        assert node.connections == 2
        assert pool.idle[-1] is youngest
        await pool.aclose()


async def test_idle_connections_age_out() -> None:
    """An idle connection is closed after its keep-alive."""
    async with FakeUpstream(fake.echo) as node:
        pool = pool_for(node, node_keepalive_s=0.1)
        await read_all(pool)
        await asyncio.sleep(0.6)
        assert not pool.idle
        assert node.open == 0
        await pool.aclose()


async def test_a_body_streams_up_in_chunks() -> None:
    """Pieces of a request arrive as they are sent, and an empty one does not end the body."""
    async with FakeUpstream(fake.echo) as node:
        pool = pool_for(node)
        request = POST._replace(body=b"one", rest=pieces(b"", b"two", b"three"))
        assert await read_all(pool, request) == b"onetwothree"
        assert node.seen[0].pieces == [b"one", b"two", b"three"]
        assert await read_all(pool) == b"sealed"
        assert node.connections == 1
        await pool.aclose()


async def test_only_fixed_fields_go_out() -> None:
    """The node sees host, bearer secret, our own fields and the framing, nothing else."""
    async with FakeUpstream(fake.echo) as node:
        pool = pool_for(node)
        await read_all(pool, POST._replace(fields=(("confide-account", "a"),)))
        assert node.seen[0].headers == [
            ("host", f"127.0.0.1:{node.port}"),
            ("authorization", f"Bearer {SECRET}"),
            ("confide-account", "a"),
            ("content-length", "6"),
        ]
        await pool.aclose()


async def test_a_slow_reader_pauses_the_node() -> None:
    """Not more than the buffer and one read of the socket waits here for a reader that does not read."""
    sent = 0

    async def flood(call: fake.Call) -> None:
        nonlocal sent
        await call.read_body()
        await call.start()
        for _ in range(2048):
            await call.chunk(b"x" * 16384)
            sent += 16384
        await call.end()

    async with FakeUpstream(flood) as node:
        pool = pool_for(node)
        response = await pool.send(POST)
        await asyncio.sleep(0.3)
        held = sum(map(len, response._chunks))
        stopped_at = sent
        await asyncio.sleep(0.1)
        assert sent == stopped_at < 2048 * 16384
        assert held <= BUFFER_BYTES + 256 * 1024
        total = 0
        while not response.ended:
            total += len(await response.read())
        assert total == 2048 * 16384
        await response.close()
        await pool.aclose()


async def test_a_node_that_does_not_read_pauses_the_request() -> None:
    """A large body waits for the node, and a named limit ends the wait."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 65536
            yield b"x" * 65536

    async with FakeUpstream(fake.never_reads) as node:
        pool = pool_for(node, stream_idle_s=0.3)
        with pytest.raises(UpstreamTimeout):
            await pool.send(POST._replace(rest=endless()))
        assert taken < 64 << 20
        await pool.aclose()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nno length, so its end cannot be told from a cut",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 70_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
    ],
)
async def test_a_broken_answer_is_an_error_and_its_connection_is_gone(data: bytes) -> None:
    """A cut, unframed, oversized or foreign answer never looks whole."""
    async with FakeUpstream(fake.sending(data, close=True)) as node:
        pool = pool_for(node)
        with pytest.raises(UpstreamError):
            await read_all(pool)
        assert not pool.idle
        assert not pool.active
        await pool.aclose()


async def test_what_came_before_a_cut_is_still_handed_on() -> None:
    """The bytes before a cut are read, then the fault is raised."""
    async with FakeUpstream(fake.drop_after([b"a", b"b"])) as node:
        pool = pool_for(node)
        response = await pool.send(POST)
        data = b""
        while len(data) < 2:
            data += await response.read()
        with pytest.raises(UpstreamError):
            await response.read()
        assert data == b"ab"
        assert not response.ended
        await response.close()
        await pool.aclose()


async def test_more_than_one_answer_spoils_the_connection() -> None:
    """Bytes after the answer's end never become the next exchange's answer."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with FakeUpstream(fake.sending(answer + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")) as node:
        pool = pool_for(node)
        assert await read_all(pool) == b"ok"
        assert not pool.idle
        assert await read_all(pool) == b"ok"
        assert node.connections == 2
        await pool.aclose()


async def test_unasked_bytes_on_an_idle_connection_close_it() -> None:
    """A node that speaks while nothing was asked loses the connection."""

    async def late(call: fake.Call) -> None:
        await fake.echo(call)
        await asyncio.sleep(0.05)
        await call.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")

    async with FakeUpstream(late) as node:
        pool = pool_for(node)
        assert await read_all(pool) == b"sealed"
        await asyncio.sleep(0.15)
        assert not pool.idle
        await pool.aclose()


async def test_a_close_by_the_node_is_respected() -> None:
    """`connection: close` keeps the connection out of the pool."""
    data = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    async with FakeUpstream(fake.sending(data)) as node:
        pool = pool_for(node)
        assert await read_all(pool) == b"ok"
        assert not pool.idle
        await pool.aclose()


async def test_informational_answers_are_passed_over() -> None:
    """A 103 before the answer is not the answer."""
    data = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with FakeUpstream(fake.sending(data)) as node:
        pool = pool_for(node)
        assert await read_all(pool) == b"ok"
        assert len(pool.idle) == 1
        await pool.aclose()


async def test_an_early_answer_ends_the_upload() -> None:
    """A node may refuse before it has the whole body; the connection is not used again."""

    async def refuse(call: fake.Call) -> None:
        await call.answer(b"", 413, "application/problem+json")

    async with FakeUpstream(refuse) as node:
        pool = pool_for(node)
        response = await pool.send(POST._replace(rest=pieces(b"late", pause_s=60)))
        assert response.status == 413
        assert await response.read() == b""
        await response.close()
        assert not pool.idle
        await pool.aclose()


async def test_silence_before_and_within_an_answer_ends_by_its_limit() -> None:
    """First byte and gaps each have a limit, and the connection goes with them."""
    async with FakeUpstream(fake.stall) as node:
        pool = pool_for(node, first_byte_s=0.2)
        began = time.monotonic()
        with pytest.raises(UpstreamTimeout):
            await pool.send(POST)
        assert time.monotonic() - began < 1
        await asyncio.wait_for(node.cancelled.wait(), 1)
        await pool.aclose()
    async with FakeUpstream(fake.stall_after([b"a"])) as node:
        pool = pool_for(node, stream_idle_s=0.2)
        with pytest.raises(UpstreamTimeout):
            await read_all(pool)
        await asyncio.wait_for(node.cancelled.wait(), 1)
        await pool.aclose()


async def test_cancelling_closes_the_connection() -> None:
    """A caller that leaves takes its connection with it, so that the node stops working for it."""
    async with FakeUpstream(fake.stall) as node:
        pool = pool_for(node)
        task = asyncio.create_task(pool.send(POST))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(node.cancelled.wait(), 1)
        assert not pool.active
        await pool.aclose()


async def test_a_node_that_is_not_there_is_unreachable() -> None:
    """A refused connection has its own error."""
    async with FakeUpstream(fake.echo) as node:
        pool = pool_for(node)
    with pytest.raises(UpstreamUnreachable):
        await pool.send(POST)
    await pool.aclose()


async def test_a_full_node_is_busy() -> None:
    """Beyond the limit of exchanges nothing waits."""
    async with FakeUpstream(fake.stall) as node:
        pool = pool_for(node, node_exchanges=1)
        first = asyncio.create_task(pool.send(POST))
        await asyncio.sleep(0.05)
        with pytest.raises(UpstreamBusy):
            await pool.send(POST)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await pool.aclose()


async def test_a_restarted_node_is_reached_again() -> None:
    """Connections that died with the node are dropped from the pool, and the next exchange opens a new one."""
    node = FakeUpstream(fake.echo)
    await node.start()
    pool = pool_for(node)
    await read_all(pool)
    await node.stop()
    await asyncio.sleep(0.05)
    await node.start()
    assert await read_all(pool) == b"sealed"
    await pool.aclose()
    await node.stop()


async def test_sealed_bytes_go_out_once_but_a_get_is_asked_again() -> None:
    """A reused connection that dies under a request is retried for a GET, never for a POST."""

    async def once(call: fake.Call) -> None:
        await call.read_body()
        if len([s for s in node.seen if s.method == call.seen.method]) == 2:
            call.writer.close()
        else:
            await call.answer(b"ok")

    async with FakeUpstream(once) as node:
        pool = pool_for(node)
        assert await read_all(pool) == b"ok"
        with pytest.raises(UpstreamError):
            await read_all(pool)
        assert len(node.seen) == 2
        get = UpstreamRequest("GET", "/evidence")
        assert await read_all(pool, get) == b"ok"
        assert await read_all(pool, get) == b"ok"
        assert len(node.seen) == 5
        await pool.aclose()
