"""The own pool and httpx2 behind one interface: the same bytes out, the same bytes in, the same faults."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from confide_gateway.forward import (
    Target,
    UpstreamDown,
    UpstreamError,
    UpstreamPool,
    UpstreamRequest,
    UpstreamTimeout,
)
from confide_gateway.forward.own import OwnPool
from confide_gateway.forward.reference import HttpxPool
from confide_gateway.settings import Limits
from confide_protocol import labels

from tests.fakes import upstream as fake
from tests.fakes.upstream import FakeUpstream

pytestmark = pytest.mark.anyio
FIELDS = (("confide-account", "a"), ("content-type", "message/ohttp-chunked-req"), ("incremental", "?1"))


def pools_for(node: FakeUpstream, **limits) -> tuple[UpstreamPool, UpstreamPool]:
    target = Target("127.0.0.1", node.port, f"127.0.0.1:{node.port}", "s" * 40, Limits(**limits))
    return OwnPool(target), HttpxPool(target)


async def outcome(pool: UpstreamPool, request: UpstreamRequest) -> tuple[int, str, bytes] | type:
    try:
        response = await pool.send(request)
        try:
            data = b""
            while not response.ended:
                data += await response.read()
            return response.status, response.content_type, data
        finally:
            await response.close()
    except UpstreamError as fault:
        return type(fault)
    finally:
        await pool.aclose()


async def pieces(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("seed", range(6))
async def test_both_pools_pass_the_same_bytes(seed: int) -> None:
    """Random bodies, whole and in pieces, arrive and come back the same, under the same header fields."""
    rng = random.Random(seed)
    parts = [rng.randbytes(rng.choice([0, 1, 1000, 70_000])) for _ in range(rng.randrange(1, 6))]
    chunks = [rng.randbytes(rng.choice([1, 512, 40_000])) for _ in range(rng.randrange(1, 9))]
    async with FakeUpstream(fake.paced(chunks)) as node:
        results = []
        for pool in pools_for(node):
            rest = pieces(parts[1:]) if seed % 2 else None
            results.append(await outcome(pool, UpstreamRequest("POST", "/ohttp/x", FIELDS, parts[0], rest)))
        own, reference = node.seen
    assert results[0] == results[1] == (200, "message/ohttp-chunked-res", b"".join(chunks))
    assert own.body == reference.body == b"".join(parts if seed % 2 else parts[:1])
    assert (own.method, own.path, dict(own.headers)) == (reference.method, reference.path, dict(reference.headers))


@pytest.mark.parametrize(
    ("behaviour", "limits", "expected"),
    [
        (fake.drop_after([b"a"]), {}, UpstreamError),
        (fake.sending(b"HTTP/1.1 200 OK\r\n\r\nunframed", close=True), {}, UpstreamError),
        (fake.sending(b"nonsense\r\n\r\n", close=True), {}, UpstreamError),
        (fake.stall_after([b"a"]), {"stream_idle_s": 0.2}, UpstreamTimeout),
        (fake.stall, {"stream_idle_s": 0.2, "first_byte_s": 0.2}, UpstreamTimeout),
        (fake.answering(b"no", 503, "text/plain"), {}, (503, "text/plain", b"no")),
    ],
)
async def test_both_pools_fail_alike(behaviour: fake.Behaviour, limits: dict, expected: object) -> None:
    """A cut, unframed, foreign or silent answer is the same error through both."""
    async with FakeUpstream(behaviour) as node:
        for pool in pools_for(node, **limits):
            assert await outcome(pool, UpstreamRequest("POST", "/ohttp/x", FIELDS, b"sealed")) == expected


KEYSETS, NONCE = labels.FIELD_KEYSETS, labels.FIELD_EHBP_NONCE
HEADS = {
    "once": ("", f"Content-Type: a/b\r\n{KEYSETS}: x\r\n{NONCE}: n\r\n", ("a/b", "x", "n")),
    "twice": (
        "",
        f"content-type: a/b\r\nContent-Type: c/d\r\n{KEYSETS}: x\r\n{KEYSETS}: y\r\n{NONCE}: n\r\n{NONCE}: n\r\n",
        ("a/b, c/d", "x, y", "n, n"),
    ),
    "first empty": ("", f"{KEYSETS}:\r\n{KEYSETS}: y\r\n", ("", ", y", "")),
    "before the head": (
        f"HTTP/1.1 103 X\r\ncontent-type: a/b\r\n{KEYSETS}: x\r\n{NONCE}: n\r\n\r\n",
        "",
        ("", "", ""),
    ),
    "before and in it": (f"HTTP/1.1 103 X\r\n{KEYSETS}: x\r\n\r\n", f"{KEYSETS}: y\r\n", ("", "y", "")),
}


@pytest.mark.parametrize("head", HEADS)
async def test_both_pools_read_a_head_alike(head: str) -> None:
    """A field that came twice is never one value, and what an informational answer says is not the answer's."""
    early, fields, expected = HEADS[head]
    data = f"{early}HTTP/1.1 200 X\r\n{fields}content-length: 2\r\n\r\nok".encode()
    async with FakeUpstream(fake.sending(data)) as node:
        for pool in pools_for(node):
            response = await pool.send(UpstreamRequest("GET", "/evidence"))
            assert (response.content_type, response.keysets, response.ehbp_nonce) == expected
            await response.close()
            await pool.aclose()


async def test_what_follows_a_body_is_no_head() -> None:
    """Trailers change nothing that was read of the head."""
    trailers = f"content-type: c/d\r\n{KEYSETS}: y\r\n{NONCE}: n\r\n"
    data = (
        f"HTTP/1.1 200 X\r\ncontent-type: a/b\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}\r\n"
    )
    async with FakeUpstream(fake.sending(data.encode())) as node:
        for pool in pools_for(node):
            response = await pool.send(UpstreamRequest("GET", "/evidence"))
            while not response.ended:
                await response.read()
            assert (response.content_type, response.keysets, response.ehbp_nonce) == ("a/b", "", "")
            await response.close()
            await pool.aclose()


async def test_both_pools_say_that_nothing_listens() -> None:
    """A refused connection has its own error through both."""
    async with FakeUpstream(fake.echo) as node:
        pass
    for pool in pools_for(node):
        assert await outcome(pool, UpstreamRequest("GET", "/healthz")) is UpstreamDown


async def test_the_reference_is_cancelled_too() -> None:
    """Cancelling the httpx2 path closes its connection as well."""
    async with FakeUpstream(fake.stall) as node:
        _, pool = own, reference = pools_for(node)
        task = asyncio.create_task(reference.send(UpstreamRequest("POST", "/ohttp/x", FIELDS, b"sealed")))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(node.cancelled.wait(), 1)
        await pool.aclose()
        await own.aclose()
