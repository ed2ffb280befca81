"""EHBP at the gateway: whose key is shown, what passes to a node, and what never does."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from confide_protocol import labels
from confide_protocol.keyconfig import KeyConfig, encode_key_configs

from tests.fakes import upstream as fake
from tests.fakes.gateway import SECRET, Reply, ask, running
from tests.fakes.node import AttestedNode, attested_upstream, make_keyset

pytestmark = pytest.mark.anyio
ON = "[dialects]\nehbp = true\n"
CHAT = "/v1/chat/completions"
NONCE = "ab" * 32
SEALED = ((labels.FIELD_EHBP_KEY, "cd" * 32), ("content-type", "application/json"))
JSON = "application/json"


def offering(**more: object) -> AttestedNode:
    return AttestedNode(keyset=replace(make_keyset(), ehbp_key=os.urandom(32)), **more)  # type: ignore[arg-type]


def sealed(status: int = 200, media: str = JSON, nonce: str = NONCE, body: bytes = b"sealed") -> fake.Behaviour:
    """Answer as an enclave does, with the response's nonce in clear."""

    async def behaviour(call: fake.Call) -> None:
        await call.read_body()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {media}\r\nset-cookie: a=b\r\n"
        head += f"{labels.FIELD_EHBP_NONCE}: {nonce}\r\ncontent-length: {len(body)}\r\n\r\n"
        await call.raw(head.encode() + body)

    return behaviour


def is_problem(reply: Reply, status: int) -> bool:
    return (reply.status, reply.body, reply.whole) == (status, labels.PROBLEMS[status], True)


def evidence_asked(upstream: fake.FakeUpstream) -> int:
    return sum(seen.path.startswith(labels.PATH_EVIDENCE) for seen in upstream.seen)


async def post(port: int, body: bytes = b"frames", path: str = CHAT) -> Reply:
    return await ask(port, "POST", path, body, headers=SEALED)


async def test_it_is_off_unless_it_is_turned_on(tmp_path: Path) -> None:
    """Without the setting there is no such path, whatever the nodes offer."""
    async with attested_upstream(offering(), sealed()) as upstream, running(tmp_path, [upstream.url]) as gateway:
        await gateway.ready()
        for method, path in (("GET", labels.PATH_EHBP_KEYS), ("POST", CHAT), ("GET", "/v1/models")):
            assert is_problem(await ask(gateway.port, method, path, headers=SEALED), 404)


async def test_the_key_shown_is_that_of_the_attested_keyset(tmp_path: Path) -> None:
    """Without an API key, as EHBP's clients ask: one bare configuration, and the keyset that vouches for it."""
    node = offering()
    async with attested_upstream(node) as upstream, running(tmp_path, [upstream.url], tables=ON) as gateway:
        assert is_problem(await ask(gateway.port, "GET", labels.PATH_EHBP_KEYS, key=None), 503)
        await gateway.ready()
        reply = await ask(gateway.port, "GET", labels.PATH_EHBP_KEYS, key=None)
        assert (reply.status, reply.headers["content-type"]) == (200, labels.MEDIA_KEYS)
        assert reply.headers[labels.FIELD_KEYSET] == node.keyset.digest.hex()
        assert node.keyset.ehbp_key is not None
        listed = encode_key_configs([KeyConfig(0, 0x0020, node.keyset.ehbp_key, ((1, 2),))])
        assert reply.body == listed[2:]
        assert is_problem(await ask(gateway.port, "POST", labels.PATH_EHBP_KEYS, key=None), 405)


async def test_keys_and_requests_meet_at_the_first_node_that_offers_it(tmp_path: Path) -> None:
    """Nodes without it are passed over; with the chosen one gone both go to the next."""
    nodes = [AttestedNode(), offering(), offering()]
    async with (
        attested_upstream(nodes[0], sealed(body=b"0")) as first,
        attested_upstream(nodes[1], sealed(body=b"1")) as second,
        attested_upstream(nodes[2], sealed(body=b"2")) as third,
        running(
            tmp_path, [first.url, second.url, third.url], tables=ON + "[appraisal]\nhealth_interval_s = 0.1\n"
        ) as gateway,
    ):
        await gateway.ready()
        async with asyncio.timeout(10):
            while not all(node.routable for node in gateway.gateway._directory.nodes):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        for _ in range(3):
            assert nodes[1].keyset.ehbp_key in (await ask(gateway.port, "GET", labels.PATH_EHBP_KEYS)).body
            assert (await post(gateway.port)).body == b"1"
        await second.stop()
        assert is_problem(await post(gateway.port), 503)
        assert nodes[2].keyset.ehbp_key in (await ask(gateway.port, "GET", labels.PATH_EHBP_KEYS)).body
        assert (await post(gateway.port)).body == b"2"


@pytest.mark.parametrize("forwarder", ["httptools", "httpx"])
@pytest.mark.parametrize("status", [200, 400, 404, 429, 503])
async def test_a_sealed_answer_passes_with_its_status(tmp_path: Path, forwarder: str, status: int) -> None:
    """Of the client's fields only the encapsulated key goes on, of the node's only type and nonce come back."""
    node = offering()
    async with (
        attested_upstream(node, sealed(status, "text/event-stream")) as upstream,
        running(tmp_path, [upstream.url], f'forwarder = "{forwarder}"', ON) as gateway,
    ):
        await gateway.ready()
        body = bytes(range(256))
        more = (("cookie", "a=b"), ("x-stainless-os", "y"), ("confide-account", "root"))
        reply = await ask(gateway.port, "POST", CHAT + "?a=b", body, headers=(*SEALED, *more))
        assert (reply.status, reply.body, reply.whole) == (status, b"sealed", True)
        assert reply.headers == {
            "content-type": "text/event-stream",
            "cache-control": "no-store",
            labels.FIELD_EHBP_NONCE: NONCE,
            "connection": "close",
            "transfer-encoding": "chunked",
        }
        seen = upstream.seen[-1]
        assert (seen.method, seen.path, seen.body) == ("POST", CHAT, body)
        assert dict(seen.headers) == {
            "host": f"127.0.0.1:{upstream.port}",
            "authorization": f"Bearer {SECRET}",
            "confide-account": "test",
            labels.FIELD_EHBP_KEY: "cd" * 32,
            "content-length": "256",
        }


async def test_a_body_in_clear_is_refused_unread(tmp_path: Path) -> None:
    """No node hears of it, and the answer says what to use instead; the words are not repeated."""
    async with (
        attested_upstream(offering(), sealed()) as upstream,
        running(tmp_path, [upstream.url], tables=ON) as gateway,
    ):
        await gateway.ready()
        for path in (CHAT, "/v1/anything"):
            reply = await ask(
                gateway.port, "POST", path, b'{"prompt": "CANARY"}', headers=(("content-type", JSON),)
            )
            assert (reply.status, reply.headers["content-type"]) == (415, JSON)
            error = json.loads(reply.body)["error"]
            assert error["code"] == "clear_body_refused"
            assert "EHBP" in error["message"]
            assert b"CANARY" not in reply.body
        assert not [seen for seen in upstream.seen if seen.path.startswith(labels.PATH_API)]


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("POST", CHAT, "cd" * 31, 400),
        ("POST", CHAT, "CD" * 32, 400),
        ("POST", CHAT, "cd" * 31 + "%0", 400),
        ("PUT", CHAT, "cd" * 32, 405),
        ("GET", CHAT, "cd" * 32, 405),
        ("DELETE", CHAT, None, 405),
        ("POST", "/v1/", "cd" * 32, 404),
        ("POST", "/v1/a%0d%0ax: y", "cd" * 32, 400),
        ("POST", "/v1/%0d%0aX:y", "cd" * 32, 404),
        ("POST", "/v1/../evidence", "cd" * 32, 404),
        ("POST", "/v1//x", "cd" * 32, 404),
        ("POST", "/v1/./chat", "cd" * 32, 404),
        ("POST", "/v1/%2e", "cd" * 32, 404),
        ("GET", "/v1/models/%E2%98%83", None, 404),
        ("POST", "/v1/" + "x" * 300, "cd" * 32, 404),
    ],
)
async def test_nothing_else_reaches_a_node(
    tmp_path: Path, method: str, path: str, key: str | None, status: int
) -> None:
    """A key that is none, a path that is none, another method: answered here, in constants."""
    fields = () if key is None else ((labels.FIELD_EHBP_KEY, key),)
    async with (
        attested_upstream(offering(), sealed()) as upstream,
        running(tmp_path, [upstream.url], tables=ON) as gateway,
    ):
        await gateway.ready()
        reply = await ask(gateway.port, method, path, headers=fields)
        assert is_problem(reply, status)
        control = {labels.PATH_EVIDENCE, labels.PATH_HEALTH, labels.PATH_READY}
        assert {seen.path.partition("?")[0] for seen in upstream.seen} <= control


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (fake.answering(b"in clear", 200, JSON), 502),
        (fake.answering(b"in clear", 500, JSON), 502),
        (fake.answering(b"CANARY", 400, labels.MEDIA_PROBLEM), 400),
        (fake.answering(b"CANARY", 409, labels.MEDIA_PROBLEM), 409),
        (fake.answering(b"CANARY", 422, labels.MEDIA_PROBLEM), 422),
        (fake.answering(b"CANARY", 404, labels.MEDIA_PROBLEM), 503),
        (fake.answering(b"CANARY", 418, labels.MEDIA_PROBLEM), 502),
        (sealed(media="text/html"), 502),
        (sealed(nonce="ab" * 31), 502),
        (sealed(nonce="AB" * 32), 502),
    ],
)
async def test_an_answer_that_is_not_sealed_is_replaced(
    tmp_path: Path, behaviour: fake.Behaviour, status: int
) -> None:
    """A node's clear bytes never pass; what its status tells is said in our own constants."""
    async with (
        attested_upstream(offering(), behaviour) as upstream,
        running(tmp_path, [upstream.url], tables=ON) as gateway,
    ):
        await gateway.ready()
        assert is_problem(await post(gateway.port), status)


async def test_after_a_stale_key_the_next_one_is_shown(tmp_path: Path) -> None:
    """A node that changed its keys unasked: 422 to all its clients, and what they fetch then is the new key.

    It was appraised just now, and one appraisal a second is the most that clients can cause: they wait for it.
    """
    node = offering()
    async with (
        attested_upstream(node, fake.answering(b"", 422, labels.MEDIA_PROBLEM)) as upstream,
        running(tmp_path, [upstream.url], tables=ON) as gateway,
    ):
        await gateway.ready()
        appraised = evidence_asked(upstream)
        node.keyset = replace(make_keyset(), ehbp_key=os.urandom(32))
        assert node.keyset.ehbp_key not in (await ask(gateway.port, "GET", labels.PATH_EHBP_KEYS)).body
        for reply in await asyncio.gather(*(post(gateway.port) for _ in range(4))):
            assert is_problem(reply, 422)
        assert node.keyset.ehbp_key in (await ask(gateway.port, "GET", labels.PATH_EHBP_KEYS)).body
        assert evidence_asked(upstream) == appraised + 1


async def test_a_node_that_turned_ehbp_off_is_passed_over(tmp_path: Path) -> None:
    """It says so by 404 in clear: that client comes again, and its key is shown to nobody any more."""
    node, other = offering(), offering()
    async with (
        attested_upstream(node, fake.answering(b"", 404, labels.MEDIA_PROBLEM)) as first,
        attested_upstream(other, sealed()) as second,
        running(tmp_path, [first.url, second.url], tables=ON) as gateway,
    ):
        await gateway.ready()
        async with asyncio.timeout(10):
            while not all(node.routable for node in gateway.gateway._directory.nodes):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        node.keyset = make_keyset()
        assert is_problem(await post(gateway.port), 503)
        assert other.keyset.ehbp_key in (await ask(gateway.port, "GET", labels.PATH_EHBP_KEYS)).body
        assert (await post(gateway.port)).status == 200


async def test_a_get_passes_in_clear_only_where_its_answer_does(tmp_path: Path) -> None:
    """The list of models: asked with the API key, answered without a nonce; a sealed answer to it is none."""
    listing = fake.answering(b'{"data":[]}', 200, JSON)
    async with (
        attested_upstream(offering(), listing) as upstream,
        running(tmp_path, [upstream.url], tables=ON) as gateway,
    ):
        await gateway.ready()
        reply = await ask(gateway.port, "GET", "/v1/models")
        assert (reply.status, reply.body) == (200, b'{"data":[]}')
        assert is_problem(await ask(gateway.port, "GET", "/v1/models", key=None), 401)
        upstream.behaviour = sealed()
        assert is_problem(await ask(gateway.port, "GET", "/v1/models"), 502)


async def test_limits_are_those_of_sealed_requests(tmp_path: Path) -> None:
    """Size, key and concurrency: the same answers as for OHTTP."""
    async with (
        attested_upstream(offering(), sealed()) as upstream,
        running(tmp_path, [upstream.url], tables=ON + "[limits]\nrequest_body_bytes = 1024\n") as gateway,
    ):
        await gateway.ready()
        assert is_problem(await post(gateway.port, bytes(1025)), 413)
        assert is_problem(await ask(gateway.port, "POST", CHAT, b"x", key="other", headers=SEALED), 401)
        gateway.gateway._relay.drain()
        assert is_problem(await post(gateway.port), 503)


async def test_browsers_of_listed_origins_may_use_it(tmp_path: Path) -> None:
    """The preflight allows EHBP's field, answers expose its nonce, and the key its keyset; off, none is named."""
    origin = ("origin", "https://chat.example")
    for tables, named in ((ON, True), ("", False)):
        async with (
            attested_upstream(offering(), sealed()) as upstream,
            running(tmp_path, [upstream.url], 'cors_origins = ["https://chat.example"]', tables) as gateway,
        ):
            await gateway.ready()
            path = CHAT if named else labels.PATH_KEYS
            asked = await ask(gateway.port, "OPTIONS", path, headers=(origin,))
            allowed = asked.headers["access-control-allow-headers"].split(", ")
            assert ("x-stainless-lang" in allowed) is (labels.FIELD_EHBP_KEY in allowed) is named
            if named:
                reply = await ask(gateway.port, "POST", CHAT, b"x", headers=(*SEALED, origin))
                exposed = reply.headers["access-control-expose-headers"].split(", ")
                assert exposed == [labels.FIELD_EHBP_NONCE, labels.FIELD_KEYSET]
            else:
                assert "access-control-expose-headers" not in asked.headers
