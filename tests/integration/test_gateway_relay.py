"""A gateway between real sockets: what passes, what is refused, and what a client sees when a node misbehaves."""

import asyncio
from pathlib import Path

import pytest
from confide_protocol import labels

from tests.fakes import upstream as fake
from tests.fakes.gateway import KEY, SEALED, SECRET, Reply, ask, post, read_reply, request, running
from tests.fakes.node import AttestedNode, attested_upstream

pytestmark = pytest.mark.anyio
EVIL = b"Traceback: the prompt was CANARY"


def is_problem(reply: Reply, status: int) -> bool:
    return (
        reply.whole
        and (reply.status, reply.body) == (status, labels.PROBLEMS[status])
        and reply.headers["content-type"] == labels.MEDIA_PROBLEM
    )


@pytest.mark.parametrize("forwarder", ["httptools", "httpx"])
async def test_a_sealed_request_passes_both_ways(tmp_path: Path, forwarder: str) -> None:
    """Body and answer pass unchanged; of the client's header fields only the content type goes on."""
    node = AttestedNode()
    sealed = bytes(range(256)) * 16
    async with (
        attested_upstream(node) as upstream,
        running(tmp_path, [upstream.url], f'forwarder = "{forwarder}"') as gateway,
    ):
        await gateway.ready()
        secret_fields = (
            ("cookie", "a=b"),
            ("user-agent", "x"),
            ("x-stainless-os", "y"),
            ("confide-account", "root"),
        )
        reply = await ask(gateway.port, "POST", node.path, sealed, headers=(*SEALED, *secret_fields))
        assert (reply.status, reply.body, reply.whole) == (200, sealed, True)
        assert reply.headers == {
            "content-type": labels.MEDIA_RESPONSE,
            "incremental": "?1",
            "connection": "close",
            "transfer-encoding": "chunked",
        }
        (seen,) = upstream.sealed()
        assert dict(seen.headers) == {
            "host": f"127.0.0.1:{upstream.port}",
            "authorization": f"Bearer {SECRET}",
            "confide-account": "test",
            "content-type": labels.MEDIA_REQUEST,
            "incremental": "?1",
            "content-length": str(len(sealed)),
        }


async def test_a_request_streams_up_and_its_answer_down_as_they_come(tmp_path: Path) -> None:
    """The node answers the first piece before the client has sent the second."""

    async def converse(call: fake.Call) -> None:
        await call.start()
        async for piece in call._pieces():
            await call.chunk(piece.upper())
        await call.end()

    node = AttestedNode()
    async with attested_upstream(node, converse) as upstream, running(tmp_path, [upstream.url]) as gateway:
        await gateway.ready()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        chunked = (*SEALED, ("transfer-encoding", "chunked"))
        writer.write(request("POST", node.path, headers=chunked, length=False) + b"3\r\none\r\n")
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"ONE\r\n") == b"3\r\nONE\r\n"
        writer.write(b"3\r\ntwo\r\n")
        assert await reader.readuntil(b"TWO\r\n") == b"3\r\nTWO\r\n"
        writer.write(b"0\r\n\r\n")
        assert await reader.read() == b"0\r\n\r\n"
        writer.close()


async def test_a_head_does_not_wait_for_its_body(tmp_path: Path) -> None:
    """The client sees that its answer began while the node still thinks about the first byte of it."""
    node = AttestedNode()
    async with (
        attested_upstream(node, fake.stall_after([])) as upstream,
        running(tmp_path, [upstream.url]) as gateway,
    ):
        await gateway.ready()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request("POST", node.path, b"x", headers=SEALED))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 1)
        assert head.startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize(
    ("status", "media", "seen"),
    [
        (500, "text/plain", 502),
        (200, "text/plain", 502),
        (200, "application/json", 502),
        (401, labels.MEDIA_PROBLEM, 502),
        (302, "text/html", 502),
        (204, labels.MEDIA_RESPONSE, 502),
        (400, labels.MEDIA_PROBLEM, 400),
        (409, "text/html", 409),
        (413, "text/html", 413),
        (415, "text/html", 415),
        (429, "text/html", 429),
        (503, "text/html", 503),
    ],
)
async def test_a_clear_answer_of_a_node_never_reaches_the_client(
    tmp_path: Path, status: int, media: str, seen: int
) -> None:
    """Whatever a node says in clear, the client sees constant bytes, and the log has none of it."""
    node = AttestedNode()
    behaviour = fake.answering(EVIL, status, media)
    async with attested_upstream(node, behaviour) as upstream, running(tmp_path, [upstream.url]) as gateway:
        await gateway.ready()
        assert is_problem(await post(gateway.port, node.path, b"x"), seen)
        assert "CANARY" not in gateway.log.getvalue()


async def test_a_cut_answer_is_a_cut_answer(tmp_path: Path) -> None:
    """A node that drops in mid-stream gives the client a closed connection, never a clean end."""
    node = AttestedNode()
    async with (
        attested_upstream(node, fake.drop_after([b"one", b"two"])) as upstream,
        running(tmp_path, [upstream.url]) as gateway,
    ):
        await gateway.ready()
        reply = await post(gateway.port, node.path, b"x")
        assert (reply.status, reply.body, reply.whole) == (200, b"onetwo", False)
        metrics = (await ask(gateway.port, "GET", "/metrics", key=None)).body
        assert b"confide_gateway_cut_total 1.0" in metrics


async def test_a_silent_node_ends_by_a_named_limit(tmp_path: Path) -> None:
    """No first byte: 504. Silence in mid-stream: cut."""
    node = AttestedNode()
    tables = "[limits]\nfirst_byte_s = 0.2\nstream_idle_s = 0.2\n"
    async with (
        attested_upstream(node, fake.stall) as upstream,
        running(tmp_path, [upstream.url], "", tables) as gateway,
    ):
        await gateway.ready()
        assert is_problem(await post(gateway.port, node.path, b"x"), 504)
        upstream.behaviour = fake.stall_after([b"one"])
        reply = await post(gateway.port, node.path, b"x")
        assert (reply.status, reply.body, reply.whole) == (200, b"one", False)


@pytest.mark.parametrize("forwarder", ["httptools", "httpx"])
@pytest.mark.parametrize("behaviour", [fake.stall, fake.stall_after([b"one"])])
async def test_a_client_that_leaves_takes_the_node_s_work_with_it(
    tmp_path: Path, forwarder: str, behaviour: fake.Behaviour
) -> None:
    """The connection to the node is closed soon after the client's, before or within the answer."""
    node = AttestedNode()
    async with (
        attested_upstream(node, behaviour) as upstream,
        running(tmp_path, [upstream.url], f'forwarder = "{forwarder}"') as gateway,
    ):
        await gateway.ready()
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request("POST", node.path, b"x", headers=SEALED))
        await asyncio.sleep(0.15)
        assert not upstream.cancelled.is_set()
        writer.close()
        await asyncio.wait_for(upstream.cancelled.wait(), 1)
        metrics = (await ask(gateway.port, "GET", "/metrics", key=None)).body
        assert b"confide_gateway_in_flight 0.0" in metrics


async def test_a_restarted_node_is_appraised_before_it_is_routed_to_again(tmp_path: Path) -> None:
    """While it is away: 503. Back with new keys: the old path is unknown, the new one is found by asking."""
    node = AttestedNode()
    tables = "[appraisal]\nhealth_interval_s = 0.1\nretry_s = 0.1\n"
    async with attested_upstream(node) as upstream, running(tmp_path, [upstream.url], "", tables) as gateway:
        await gateway.ready()
        assert (await post(gateway.port, node.path, b"x")).status == 200
        await upstream.stop()
        assert is_problem(await post(gateway.port, node.path, b"x"), 503)
        assert (await ask(gateway.port, "GET", "/readyz", key=None)).status == 503
        old, fresh = node.path, AttestedNode()
        node.keyset, node.made = fresh.keyset, []
        await upstream.start()
        await gateway.ready()
        assert is_problem(await post(gateway.port, old, b"x"), 400)
        assert (await post(gateway.port, node.path, b"x")).status == 200


async def test_a_slow_reader_does_not_fill_the_gateway(tmp_path: Path) -> None:
    """The node is paused by a client that does not read, and the client is dropped after a named limit."""
    sent = 0

    async def flood(call: fake.Call) -> None:
        nonlocal sent
        await call.read_body()
        await call.start()
        while True:
            await call.chunk(b"x" * 16384)
            sent += 16384

    node = AttestedNode()
    tables = "[limits]\nwrite_stall_s = 0.6\n"
    async with attested_upstream(node, flood) as upstream, running(tmp_path, [upstream.url], "", tables) as gateway:
        await gateway.ready()
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=4096)
        writer.write(request("POST", node.path, b"x", headers=SEALED))
        await asyncio.sleep(0.4)
        before = sent
        await asyncio.sleep(0.1)
        assert sent == before
        await asyncio.wait_for(upstream.cancelled.wait(), 2)
        writer.close()


async def test_header_injection_stays_outside(tmp_path: Path) -> None:
    """Nothing that a client writes into its path, query or fields appears in what the node reads."""
    node = AttestedNode()
    async with attested_upstream(node) as upstream, running(tmp_path, [upstream.url]) as gateway:
        await gateway.ready()
        seen = len(upstream.seen)
        nonce = "ab" * 32
        for method, path, status in [
            ("POST", node.path + "%0d%0aconfide-account:%20root", 400),
            ("POST", node.path + "%20HTTP/1.1%0d%0ax:%20y", 400),
            ("POST", node.path.upper(), 404),
            ("POST", node.path + "/", 400),
            ("POST", node.path + "/../../evidence", 400),
            ("GET", f"/evidence?nonce={nonce}%0d%0ax:y", 400),
            ("GET", f"/evidence?nonce={nonce}&keyset={nonce}&x=y", 400),
            ("GET", f"/evidence?nonce={nonce}&nonce={nonce}", 400),
            ("GET", f"/evidence?nonce={nonce.upper()}", 400),
            ("GET", "/evidence", 400),
        ]:
            assert is_problem(await ask(gateway.port, method, path, headers=SEALED), status), path
        smuggled = request("POST", node.path, b"", headers=(*SEALED, ("transfer-encoding", "chunked")))
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(smuggled + b"0\r\n\r\n")
        assert (await read_reply(reader)).status == 400
        writer.close()
        assert not [
            s for s in upstream.seen[seen:] if s.path.startswith((labels.PATH_OHTTP, "/evidence?nonce=abab"))
        ]


async def test_the_key_stays_at_the_gateway(tmp_path: Path) -> None:
    """The client's key reaches neither node nor log nor metrics, at the most verbose setting."""
    node = AttestedNode()
    tables = '[log]\nlevel = "debug"\nrequests = true\n'
    async with attested_upstream(node) as upstream, running(tmp_path, [upstream.url], "", tables) as gateway:
        await gateway.ready()
        assert (await post(gateway.port, node.path, b"CANARY")).status == 200
        metrics = (await ask(gateway.port, "GET", "/metrics", key=None)).body.decode()
        everything = gateway.log.getvalue() + metrics + repr([seen.headers for seen in upstream.seen])
        assert KEY not in everything
        assert "CANARY" not in everything
        assert SECRET not in gateway.log.getvalue() + metrics
        assert {"event": "exchange", "account": "test", "status": 200, "cut": False}.items() <= gateway.events[
            -1
        ].items()
