"""EHBP at the enclave: the same API behind a weaker seal, with the receipt that says so."""

import json
from typing import Any

import pytest
from confide_protocol import labels
from confide_protocol.keyset import Keyset

from tests.fakes.ehbp import CHAT, Said, Sealed, frames_of
from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.support import HttpAnswer, Node
from tests.unit.enclave.support import Sealed as SealedOhttp

pytestmark = pytest.mark.anyio

STREAM = {**CHAT, "stream": True}
ON: dict[str, Any] = {"dialects": {"ehbp": True}}


def keyed(node: Node) -> bytes:
    assert node.keyset.ehbp_key is not None
    return node.keyset.ehbp_key


async def send(node: Node, request: Sealed, body: bytes | None = None, **options: Any) -> HttpAnswer:
    whole = request.whole() if body is None else body
    return await node.call("POST", request.path, [whole[:7], whole[7:]], request.fields, **options)


def read(request: Sealed, answer: HttpAnswer, keyset: Keyset) -> Said:
    """Open an answer and verify its receipt."""
    said = request.read(answer.headers[labels.FIELD_EHBP_NONCE], answer.body)
    media = answer.headers["content-type"]
    said.claims = said.check(keyset, request.plain, answer.status, media, request.path)  # type: ignore[attr-defined]
    return said


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_is_answered_with_its_receipt(stream: bool) -> None:
    """It opens, reads like OpenAI's, and its receipt names the dialect, what that lacks, and this exchange."""
    node = Node(**ON)
    request = Sealed(keyed(node), {**CHAT, "stream": stream})
    answer = await send(node, request)
    assert (answer.status, answer.ended) == (200, True)
    said = read(request, answer, node.keyset)
    text = said.text if stream else json.loads(said.body)["choices"][0]["message"]["content"]
    assert text == "Paris is the capital."
    claims = said.claims  # type: ignore[attr-defined]
    assert claims.dialect.startswith("ehbp (not promised: bound path and headers, end of message, post-quantum)")
    assert claims.suite == "x25519/hkdf-sha256/aes-256-gcm"
    assert (claims.outcome, claims.statement_digest, claims.client_asserted) == ("complete", None, {})
    assert b"Paris" not in answer.body


async def test_the_manifest_and_the_keyset_say_that_it_is_on() -> None:
    """Off, neither has a trace of it and nothing answers; on, both differ: policies that pin refuse the node."""
    off, on = Node(), Node(**ON)
    assert "ehbp" not in off.manifest.engine
    assert off.keyset.ehbp_key is None
    assert on.manifest.engine["ehbp"] is True
    assert on.manifest.digest != off.manifest.digest
    request = Sealed(keyed(on), CHAT)
    answer = await send(off, request)
    assert (answer.status, answer.body) == (404, labels.PROBLEMS[404])
    assert off.engine.requests == []


async def test_the_key_serves_nothing_else() -> None:
    """It stands apart from the keys of OHTTP, and each keyset has another one."""
    node = Node(**ON)
    first = keyed(node)
    assert first not in node.keyset.ohttp_keys
    node.clock.now = node.keyset.not_after_unix_s
    assert keyed(node) != first


async def test_a_key_is_opened_in_its_grace_and_stale_after_it() -> None:
    """In its grace the old key answers, under its own keyset; then 422 says to fetch the new one."""
    node = Node(**ON)
    old = node.keyset
    assert old.ehbp_key is not None
    node.clock.now = old.not_after_unix_s - labels.KEYSET_GRACE_S
    assert node.keyset.digest != old.digest
    request = Sealed(old.ehbp_key, CHAT)
    read(request, await send(node, request), old)
    node.clock.now += labels.KEYSET_GRACE_S
    stale = await send(node, Sealed(old.ehbp_key, CHAT))
    assert (stale.status, stale.body) == (422, labels.PROBLEMS[422])
    assert json.loads(stale.body)["type"] == "urn:ietf:params:ehbp:error:key-config"
    assert labels.FIELD_EHBP_NONCE not in stale.headers
    fresh = Sealed(keyed(node), CHAT)
    read(fresh, await send(node, fresh), node.keyset)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_what_was_opened_once_is_opened_by_nobody_again(path: str) -> None:
    """Captured bytes, at the same path or another: the constant 400, and the engine is not asked."""
    node = Node(**ON)
    request = Sealed(keyed(node), CHAT)
    body = request.whole()
    assert (await send(node, request, body)).status == 200
    asked = len(node.engine.requests)
    request.path = path
    again = await send(node, request, body)
    assert (again.status, again.body) == (400, labels.PROBLEMS[400])
    assert len(node.engine.requests) == asked


async def test_a_swapped_path_is_seen_in_the_receipt() -> None:
    """Nothing binds the path: what ran instead is answered, but its receipt is not of the path that was meant."""
    node = Node(**ON)
    request = Sealed(keyed(node), CHAT)
    request.path = "/v1/embeddings"
    answer = await send(node, request)
    assert answer.status >= 400
    said = request.read(answer.headers[labels.FIELD_EHBP_NONCE], answer.body)
    with pytest.raises(AssertionError):
        said.check(node.keyset, request.plain, answer.status, "application/json", "/v1/chat/completions")
    said.check(node.keyset, request.plain, answer.status, "application/json", "/v1/embeddings")


@pytest.mark.parametrize("later", [False, True])
async def test_a_changed_frame_is_refused(later: bool) -> None:
    """The first one like a stale key; a later one sealed, for then the sender is known to hold the other half."""
    node = Node(**ON)
    request = Sealed(keyed(node), CHAT)
    frames = [request.seal(request.plain[:10]), request.seal(request.plain[10:])]
    spoilt = bytearray(frames[later])
    spoilt[-1] ^= 1
    frames[later] = bytes(spoilt)
    answer = await send(node, request, b"".join(frames))
    if later:
        assert answer.status == 400
        said = request.read(answer.headers[labels.FIELD_EHBP_NONCE], answer.body)
        claims = said.check(node.keyset, b"", 400, "application/json", request.path)
        assert claims.outcome == "refused"
        assert json.loads(said.body)["error"]["code"] == "decryption_failed"
    else:
        assert (answer.status, answer.body) == (422, labels.PROBLEMS[422])
    assert node.engine.requests == []


async def test_refusals_are_sealed() -> None:
    """An unknown model, a path of no API, JSON that was cut: sealed, with OpenAI's error and a receipt."""
    node = Node(**ON)
    cases: list[tuple[Any, str, int]] = [
        ({**CHAT, "model": "other"}, "/v1/chat/completions", 404),
        (CHAT, "/v1/nothing", 404),
        (json.dumps(CHAT).encode()[:-1], "/v1/chat/completions", 400),
    ]
    for body, path, status in cases:
        request = Sealed(keyed(node), body, path=path)
        answer = await send(node, request)
        assert answer.status == status
        said = read(request, answer, node.keyset)
        assert said.claims.outcome == "refused"  # type: ignore[attr-defined]
        assert json.loads(said.body)["error"]["message"]


async def test_an_aborted_stream_ends_with_its_error_and_a_receipt_that_says_so() -> None:
    """An engine that breaks amid a stream: the error event, then the receipt with outcome aborted."""
    node = Node(ScriptedEngine(["word "] * 40, fail_at=20, fault=RuntimeError()), **ON)
    request = Sealed(keyed(node), STREAM)
    answer = await send(node, request)
    said = read(request, answer, node.keyset)
    assert said.claims.outcome == "aborted"  # type: ignore[attr-defined]
    assert b'"error"' in said.events[-1]


async def test_nothing_in_clear_reaches_the_api() -> None:
    """No field, half a field, an encoding, another method: refused unread by the constant of the status."""
    node = Node(**ON)
    request = Sealed(keyed(node), CHAT)
    plain = json.dumps(CHAT).encode()
    cases: list[tuple[str, dict[str, str], bytes, int]] = [
        ("POST", {}, plain, 415),
        ("POST", {labels.FIELD_EHBP_KEY: "xyz"}, plain, 400),
        ("POST", {labels.FIELD_EHBP_KEY: request.enc.hex().upper() + "00"}, plain, 400),
        ("POST", {**request.fields, "content-encoding": "gzip"}, request.whole(), 415),
        ("PUT", request.fields, request.whole(), 405),
        ("GET", request.fields, b"", 405),
        ("POST", request.fields, b"", 400),
        ("POST", request.fields, b"\0\0\0\1x", 400),
        ("POST", {**request.fields, "content-length": "9999999"}, b"", 413),
    ]
    for method, fields, body, status in cases:
        answer = await node.call(method, "/v1/chat/completions", [body], fields)
        assert (answer.status, answer.body) == (status, labels.PROBLEMS[status])
    assert node.engine.requests == []


async def test_only_the_gateway_may_call() -> None:
    """Without the bearer secret there is no path, sealed or not."""
    node = Node(**ON)
    for method in ("GET", "POST"):
        answer = await node.call(method, "/v1/models", headers=Sealed(keyed(node), CHAT).fields, secret=None)
        assert answer.status == 401


async def test_the_list_of_models_is_told_in_clear() -> None:
    """A GET has no key: it gets what the manifest publishes, and nothing that is not there."""
    node = Node(**ON)
    listed = await node.call("GET", "/v1/models")
    assert [model["id"] for model in json.loads(listed.body)["data"]] == ["scripted"]
    assert (await node.call("GET", "/v1/models/other")).status == 404
    assert (await node.call("GET", "/v1/chat/completions")).status == 405
    assert node.engine.requests == []


async def test_no_two_requests_share_a_cache() -> None:
    """Nothing that is not bound may open a cache: each request has a salt of its own, kept by nobody."""
    node = Node(**ON)
    for _ in range(2):
        await send(node, Sealed(keyed(node), CHAT))
    first, second = node.engine.requests
    assert first.cache_salt != second.cache_salt
    assert not first.cache_lasts


async def test_the_account_is_what_the_gateway_says() -> None:
    """Fairness counts it as it does of sealed requests."""
    node = Node(**ON)
    request = Sealed(keyed(node), CHAT)
    await node.call("POST", request.path, [request.whole()], {**request.fields, labels.FIELD_ACCOUNT: "alice"})
    assert node.engine.requests[0].account == "alice"


async def test_a_client_that_leaves_stops_the_engine() -> None:
    """As with sealed requests: nobody is left to answer."""
    engine = ScriptedEngine(["word "] * 200)
    node = Node(engine, **ON)
    answer = await send(node, Sealed(keyed(node), STREAM), leave_after=2)
    assert not answer.ended
    assert (engine.running, engine.cancelled) == (0, 1)


async def test_both_dialects_are_served_side_by_side() -> None:
    """OHTTP goes on as it does; its receipt names it, and neither opens what is sealed for the other."""
    node = Node(**ON)
    ours = SealedOhttp(node, await node.statement_digest(), CHAT)
    assert ours.open(await ours.send(node)).claims.dialect == labels.DIALECT_CHUNKED_OHTTP
    crossed = await node.call(
        "POST", ours.target, [Sealed(keyed(node), CHAT).whole()], {"content-type": labels.MEDIA_REQUEST}
    )
    assert (crossed.status, crossed.body) == (400, labels.PROBLEMS[400])


async def test_a_stream_comes_as_it_is_made() -> None:
    """One frame for each batch, and the receipt after all of them."""
    node = Node(shapes=["none"], **ON)
    request = Sealed(keyed(node), STREAM)
    answer = await send(node, request)
    pieces = request.open(answer.headers[labels.FIELD_EHBP_NONCE], answer.body)
    assert len(pieces) == len(frames_of(answer.body)) > 3
    assert b"receipt" in pieces[-1]
    assert not any(b"receipt" in piece for piece in pieces[:-1])
    assert read(request, answer, node.keyset).claims.shape == "none"  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [CHAT, STREAM, {**CHAT, "model": "other"}])
async def test_sizes_are_hidden_where_a_shape_for_it_is_offered(body: dict[str, Any]) -> None:
    """Frames of one size in a number that is a power of two, whatever was said; the receipt names the shape."""
    sizes = set()
    for words in (["a"] * 3, ["tremendously"] * 8):
        node = Node(ScriptedEngine(words), **ON)
        request = Sealed(keyed(node), body)
        answer = await send(node, request)
        pieces = request.open(answer.headers[labels.FIELD_EHBP_NONCE], answer.body)
        total = sum(map(len, pieces))
        assert total % 512 == 0
        assert (total // 512).bit_count() == 1
        claims = read(request, answer, node.keyset).claims  # type: ignore[attr-defined]
        assert claims.shape == "bucketed"
        assert claims.completion_tokens.bit_count() <= 1
        sizes.add(tuple(map(len, pieces)))
    assert len(sizes) == 1
