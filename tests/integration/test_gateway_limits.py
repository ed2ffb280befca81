"""Who is let in, how much of everything is taken, and how the gateway stops."""

import asyncio
from pathlib import Path

import confide
import openai
import pytest
from confide_gateway.keys import KeyFile, load_keys, with_key, without_key, write_keys
from confide_protocol import labels

from tests.fakes import upstream as fake
from tests.fakes.gateway import KEY, SEALED, ask, post, read_reply, request, running
from tests.fakes.node import AttestedNode, attested_upstream
from tests.fakes.stack import Stack

pytestmark = pytest.mark.anyio
ORIGIN = "https://chat.example"


@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x", KEY[:-1], KEY + "\xe9"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/ohttp/00"), ("GET", "/evidence"), ("GET", labels.PATH_KEYS)]
)
async def test_nobody_without_a_key(tmp_path: Path, key: str | None, method: str, path: str) -> None:
    """A missing, empty, cut, lengthened or foreign key is 401 before anything else is looked at."""
    async with running(tmp_path, ["http://127.0.0.1:1"]) as gateway:
        reply = await ask(gateway.port, method, path, key=key)
        assert (reply.status, reply.body) == (401, labels.PROBLEMS[401])


async def test_method_type_and_length_are_checked_before_a_node_is_asked(tmp_path: Path) -> None:
    """Wrong method, wrong media type, announced excess: constant answers, and the node sees nothing."""
    node = AttestedNode()
    tables = "[limits]\nrequest_body_bytes = 2048\n"
    async with attested_upstream(node) as upstream, running(tmp_path, [upstream.url], "", tables) as gateway:
        await gateway.ready()
        assert (await ask(gateway.port, "GET", node.path)).status == 405
        assert (await ask(gateway.port, "DELETE", node.path, headers=SEALED)).status == 405
        assert (await ask(gateway.port, "POST", labels.PATH_EVIDENCE)).status == 405
        assert (await ask(gateway.port, "POST", node.path)).status == 415
        assert (await post(gateway.port, node.path, b"x" * 2049)).status == 413
        assert (await post(gateway.port, node.path, b"x" * 2048)).status == 200
        assert (await ask(gateway.port, "GET", "/nowhere", key=None)).body == labels.PROBLEMS[404]
        assert (await ask(gateway.port, "POST", "/healthz", key=None)).body == labels.PROBLEMS[405]
        assert len(upstream.sealed()) == 1


def test_a_bucket_of_4_mib_passes_gateway_and_enclave(stack: Stack) -> None:
    """The greatest request of both defaults is answered from within the seal."""
    client = stack.openai(limits=confide.Limits(max_request_bytes=4 << 20))
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="absent", messages=[{"role": "user", "content": "x" * 4_100_000}])
    assert caught.value.code == "model_not_found"


async def test_a_body_beyond_its_limit_ends_while_it_streams(tmp_path: Path) -> None:
    """A chunked body is counted as it comes: 413, and the node's connection is closed."""
    node = AttestedNode()
    tables = "[limits]\nrequest_body_bytes = 4096\n"
    async with attested_upstream(node) as upstream, running(tmp_path, [upstream.url], "", tables) as gateway:
        await gateway.ready()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        chunked = (*SEALED, ("transfer-encoding", "chunked"))
        writer.write(request("POST", node.path, headers=chunked, length=False))
        for _ in range(5):
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await asyncio.sleep(0.02)
        reply = await read_reply(reader)
        assert (reply.status, reply.body) == (413, labels.PROBLEMS[413])
        await asyncio.wait_for(upstream.cancelled.wait(), 1)
        writer.close()


@pytest.mark.parametrize("begun", [b"", b"1\r\nx\r\n"])
async def test_a_slow_body_ends_by_its_limit(tmp_path: Path, begun: bytes) -> None:
    """A body that does not begin, or does not go on, is 408."""
    node = AttestedNode()
    tables = "[limits]\nrequest_body_idle_s = 0.3\n"
    async with attested_upstream(node) as upstream, running(tmp_path, [upstream.url], "", tables) as gateway:
        await gateway.ready()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        chunked = (*SEALED, ("transfer-encoding", "chunked"))
        writer.write(request("POST", node.path, headers=chunked, length=False) + begun)
        reply = await asyncio.wait_for(read_reply(reader), 2)
        assert (reply.status, reply.body) == (408, labels.PROBLEMS[408])
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"POST /ohttp/x HTTP/1.1\r\nhost: ", b"\r\n"])
async def test_a_slow_head_ends_by_its_limit(tmp_path: Path, sent: bytes) -> None:
    """A connection that sends no head, half a head, or empty lines is closed."""
    tables = "[limits]\nrequest_head_s = 0.3\n"
    async with running(tmp_path, ["http://127.0.0.1:1"], "", tables) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(sent)
        with pytest.raises(ConnectionError):  # noqa: PT012 - an end of file is as good
            await asyncio.wait_for(reader.read(), 1)
            raise ConnectionError
        writer.close()


async def test_empty_lines_do_not_hold_a_connection_open(tmp_path: Path) -> None:
    """Between requests, empty lines do not prolong the keep-alive."""
    async with running(tmp_path, ["http://127.0.0.1:1"], "", "[limits]\nkeepalive_s = 0.3\n") as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b'"ok"}')
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(10):
                writer.write(b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.close()


async def test_a_large_head_is_cut_off(tmp_path: Path) -> None:
    """Header fields beyond the limit close the connection, however they are split."""
    tables = "[limits]\nrequest_head_bytes = 2048\n"
    async with running(tmp_path, ["http://127.0.0.1:1"], "", tables) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nx: ")
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(20):
                writer.write(b"a" * 1024)
                await writer.drain()
                await asyncio.sleep(0.01)
            await reader.read()
            raise ConnectionError
        writer.close()


@pytest.mark.parametrize(
    "data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nx y\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n"]
)
async def test_what_is_not_http_gets_the_constant_400(tmp_path: Path, data: bytes) -> None:
    """The parser's own words stay inside, and the connection is closed."""
    async with running(tmp_path, ["http://127.0.0.1:1"]) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(data)
        reply = await read_reply(reader)
        assert (reply.status, reply.body) == (400, labels.PROBLEMS[400])
        assert await reader.read() == b""
        writer.close()


async def test_nonsense_after_a_request_cuts_its_answer(tmp_path: Path) -> None:
    """No second answer is written into the one under way, and the node's work ends."""
    node = AttestedNode()
    behaviour = fake.stall_after([b"one"])
    async with attested_upstream(node, behaviour) as upstream, running(tmp_path, [upstream.url]) as gateway:
        await gateway.ready()
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request("POST", node.path, b"x", headers=SEALED).replace(b"connection: close\r\n", b""))
        await reader.readuntil(b"one\r\n")
        writer.write(b"nonsense\r\n\r\n")
        with pytest.raises(ConnectionError):  # noqa: PT012
            assert await asyncio.wait_for(reader.read(), 1) == b""
            raise ConnectionError
        await asyncio.wait_for(upstream.cancelled.wait(), 1)
        writer.close()


async def test_concurrency_is_limited_by_key(tmp_path: Path) -> None:
    """Four at once, as the file says: the fifth is 429, and a place comes free with every end."""
    node = AttestedNode()
    async with attested_upstream(node, fake.stall) as upstream, running(tmp_path, [upstream.url]) as gateway:
        await gateway.ready()
        waiting = [asyncio.create_task(post(gateway.port, node.path, b"x")) for _ in range(4)]
        await asyncio.sleep(0.1)
        reply = await post(gateway.port, node.path, b"x")
        assert (reply.status, reply.body) == (429, labels.PROBLEMS[429])
        waiting[0].cancel()
        await asyncio.sleep(0.15)
        upstream.behaviour = fake.echo
        assert (await post(gateway.port, node.path, b"x")).status == 200
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_evidence_has_places_of_its_own(tmp_path: Path) -> None:
    """As many as calls have: neither takes one of the other's, and each is bounded."""
    node = AttestedNode()
    asked = f"{labels.PATH_EVIDENCE}?nonce={'ab' * 32}"
    async with attested_upstream(node, fake.stall) as upstream, running(tmp_path, [upstream.url]) as gateway:
        await gateway.ready()
        calls = [asyncio.create_task(post(gateway.port, node.path, b"x")) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert (await post(gateway.port, node.path, b"x")).status == 429
        assert (await ask(gateway.port, "GET", asked)).status == 200
        upstream.routes[labels.PATH_EVIDENCE] = fake.stall
        questions = [asyncio.create_task(ask(gateway.port, "GET", asked)) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert (await ask(gateway.port, "GET", asked)).status == 429
        for task in calls:
            task.cancel()
        await asyncio.sleep(0.15)
        upstream.behaviour = fake.echo
        assert (await post(gateway.port, node.path, b"x")).status == 200
        for task in questions:
            task.cancel()
        await asyncio.sleep(0.15)
        upstream.routes[labels.PATH_EVIDENCE] = node.serve_evidence
        assert (await ask(gateway.port, "GET", asked)).status == 200
        await asyncio.gather(*calls, *questions, return_exceptions=True)


async def test_connections_are_limited(tmp_path: Path) -> None:
    """Beyond the limit a connection is closed at once."""
    async with running(tmp_path, ["http://127.0.0.1:1"], "", "[limits]\nconnections = 2\n") as gateway:
        held = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (await ask(gateway.port, "GET", "/healthz", key=None)).status == 0
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.05)
        assert (await ask(gateway.port, "GET", "/healthz", key=None)).status == 200


async def test_keys_come_and_go_while_it_runs(tmp_path: Path) -> None:
    """A new key works and a revoked one does not, within a second or two; a broken file changes nothing."""
    async with running(tmp_path, ["http://127.0.0.1:1"]) as gateway:
        path = tmp_path / "keys.toml"
        write_keys(path, with_key(load_keys(path), path, "second", "confide-second", 1))
        await asyncio.sleep(1.3)
        assert (await ask(gateway.port, "GET", labels.PATH_KEYS, key="confide-second")).status == 503
        path.write_text("nonsense")
        await asyncio.sleep(1.3)
        assert gateway.events[-1]["event"] == "keys_unreadable"
        assert (await ask(gateway.port, "GET", labels.PATH_KEYS)).status == 503
        write_keys(path, without_key(with_key(KeyFile(), path, "test", KEY, 1), path, "test"))
        await asyncio.sleep(1.3)
        assert (await ask(gateway.port, "GET", labels.PATH_KEYS)).status == 401


async def test_cors_answers_listed_origins_alone(tmp_path: Path) -> None:
    """A listed origin gets its fields on preflight, answer and refusal; any other gets none, by no trick."""
    node = AttestedNode()
    extra = f'cors_origins = ["{ORIGIN}"]'
    async with attested_upstream(node) as upstream, running(tmp_path, [upstream.url], extra) as gateway:
        await gateway.ready()
        preflight = (("origin", ORIGIN), ("access-control-request-method", "POST"))
        reply = await ask(gateway.port, "OPTIONS", node.path, key=None, headers=preflight)
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in reply.headers
        for status, key in ((200, KEY), (401, None)):
            headers = (*SEALED, ("origin", ORIGIN))
            reply = await ask(gateway.port, "POST", node.path, b"x", key=key, headers=headers)
            assert (reply.status, reply.headers["access-control-allow-origin"]) == (status, ORIGIN)
            assert reply.headers["vary"] == "origin"
        for origin in (
            "https://evil.example",
            "null",
            ORIGIN + ".evil",
            ORIGIN.upper(),
            "https://chat.example:443",
        ):
            reply = await ask(gateway.port, "OPTIONS", node.path, key=None, headers=(("origin", origin),))
            assert (reply.status, reply.body) == (405, labels.PROBLEMS[405])
            assert not [name for name in reply.headers if name.startswith("access-control")]
            reply = await ask(gateway.port, "POST", node.path, b"x", headers=(*SEALED, ("origin", origin)))
            assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_it_stops_gracefully(tmp_path: Path) -> None:
    """Once told to stop it is not ready and refuses what is new, while what is under way comes to its end."""
    node = AttestedNode()
    behaviour = fake.paced([b"x"] * 10, 0.1)
    async with attested_upstream(node, behaviour) as upstream, running(tmp_path, [upstream.url]) as gateway:
        await gateway.ready()
        under_way = asyncio.create_task(post(gateway.port, node.path, b"x"))
        await asyncio.sleep(0.2)
        gateway.server.should_exit = True
        await asyncio.sleep(0.25)
        assert (await ask(gateway.port, "GET", "/readyz", key=None)).status == 503
        assert (await ask(gateway.port, "GET", "/healthz", key=None)).status == 200
        assert (await post(gateway.port, node.path, b"x")).status == 503
        reply = await under_way
        assert (reply.body, reply.whole) == (b"x" * 10, True)
        await asyncio.sleep(0.3)
        with pytest.raises(ConnectionError):
            await ask(gateway.port, "GET", "/healthz", key=None)


async def test_the_grace_has_an_end(tmp_path: Path) -> None:
    """What outlives the grace is cut, towards the client and towards the node."""
    node = AttestedNode()
    tables = "[limits]\nstop_grace_s = 0.3\n"
    behaviour = fake.stall_after([b"one"])
    async with (
        attested_upstream(node, behaviour) as upstream,
        running(tmp_path, [upstream.url], "", tables) as gateway,
    ):
        await gateway.ready()
        under_way = asyncio.create_task(post(gateway.port, node.path, b"x"))
        await asyncio.sleep(0.2)
        gateway.server.should_exit = True
        reply = await asyncio.wait_for(under_way, 3)
        assert (reply.body, reply.whole) == (b"one", False)
        await asyncio.wait_for(upstream.cancelled.wait(), 1)
