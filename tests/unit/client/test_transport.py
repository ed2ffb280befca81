"""The transports of both HTTP libraries, sync and async, over a wire that lies."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import httpx2
import pytest
from confide import relay as relay_module
from confide.errors import OutcomeUnknown
from confide.pools import Pools
from confide.transport import transports
from confide_protocol import labels
from confide_protocol.errors import (
    ConfideError,
    DecryptionFailed,
    LocalStateError,
    ReceiptInvalid,
    RelayRefused,
    RelayUnreachable,
    Truncated,
)

from tests.fakes.peer import JSON, Peer, Wire, a_peer, said

URL = "http://gateway.test/v1/chat/completions"
STREAM = b"".join(said("Par", "is."))


class Client:
    """One HTTP library in one colour: asks, and returns what the application would have seen."""

    def __init__(self, module: Any, asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module, self.asynchronous = module, asynchronous
        self.wire = Wire(a_peer(), module)
        monkeypatch.setattr(relay_module, "fetch_evidence", self.wire.fetch)
        monkeypatch.setattr("confide.transport._Sealed._pool", lambda *_: self.wire)
        self.relay = a_peer().relay()
        self.transport = transports(module)[asynchronous]("http://gateway.test", relay=self.relay)
        self.shown = b""

    def ask(self, url: str = URL, **options: Any) -> Any:
        """Stream one request; `shown` holds what was yielded, also if an error ends it."""
        self.shown = b""
        options = {"headers": {"authorization": "Bearer k", "user-agent": "app"}, "json": {}, **options}
        return asyncio.run(self._ask_async(url, options)) if self.asynchronous else self._ask(url, options)

    def _ask(self, url: str, options: dict[str, Any]) -> Any:
        with (
            self.module.Client(transport=self.transport) as client,
            client.stream("POST", url, **options) as response,
        ):
            for part in response.iter_raw():
                self.shown += part
        return response

    async def _ask_async(self, url: str, options: dict[str, Any]) -> Any:
        async with (
            self.module.AsyncClient(transport=self.transport) as client,
            client.stream("POST", url, **options) as response,
        ):
            async for part in response.aiter_raw():
                self.shown += part
        return response


@pytest.fixture(params=["httpx2-sync", "httpx2-async", "httpx-sync", "httpx-async"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Client:
    library, colour = request.param.split("-")
    return Client({"httpx": httpx, "httpx2": httpx2}[library], colour == "async", monkeypatch)


def test_a_stream_passes(client: Client) -> None:
    """A plain request in, the plain stream back, the receipt beside it."""
    response = client.ask()
    assert client.shown == STREAM
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.extensions["confide"].receipt is client.relay.last_receipt is not None
    assert client.wire.closed == 1


def test_only_the_fixed_fields_go_outside(client: Client) -> None:
    """The gateway sees the bearer and the media types; the SDK's own fields travel inside."""
    client.ask(headers={"authorization": "Bearer k", "x-stainless-os": "Linux"})
    (outer,) = client.wire.seen
    assert set(outer.headers) == {
        "host",
        "authorization",
        "content-type",
        "accept",
        "incremental",
        "content-length",
    }
    assert client.wire.peer.fields["x-stainless-os"] == "Linux"
    assert "authorization" not in client.wire.peer.fields
    assert client.wire.fetched == [{"authorization": "Bearer k"}]


def test_a_plain_body_passes(client: Client) -> None:
    """A body that is no stream is handed over whole, with its own length."""
    body = b'{"choices":[{"index":0,"message":{"content":"Paris."}}]}'
    answer = client.wire.peer.answer
    client.wire.reply = lambda sealed: (
        200,
        labels.MEDIA_RESPONSE,
        answer(sealed, [body], content_type=JSON, messages=[b"Paris."]),
    )
    response = client.ask()
    assert client.shown == body
    assert response.headers["content-length"] == str(len(body))


def test_a_sealed_refusal_keeps_its_status(client: Client) -> None:
    """The inner status is what the application sees."""
    client.wire.reply = lambda sealed: (
        200,
        labels.MEDIA_RESPONSE,
        client.wire.peer.answer(sealed, [b"{}"], status=422, content_type=JSON, outcome="refused"),
    )
    assert client.ask().status_code == 422


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ((200, "text/event-stream", [STREAM]), OutcomeUnknown),
        ((401, labels.MEDIA_PROBLEM, [b"CANARY"]), RelayRefused),
        ((302, "text/html", []), OutcomeUnknown),
        ((503, labels.MEDIA_RESPONSE, []), RelayRefused),
        ((200, labels.MEDIA_RESPONSE, []), Truncated),
        ((200, labels.MEDIA_RESPONSE, [b"x" * 2000]), (DecryptionFailed, Truncated)),
    ],
)
def test_clear_and_garbled_answers_are_errors(client: Client, reply: Any, error: Any) -> None:
    """What is not a sealed answer is a typed error that shows none of it."""
    client.wire.reply = lambda sealed: reply
    with pytest.raises(error) as caught:
        client.ask()
    assert client.shown == b""
    assert "CANARY" not in str(caught.value)
    assert client.wire.closed == len(client.wire.seen)


def test_a_cut_stream_raises_before_done(client: Client) -> None:
    """Without the last chunk the stream ends in an error, never in [DONE]."""
    good = client.wire.reply
    client.wire.reply = lambda sealed: (200, labels.MEDIA_RESPONSE, list(good(sealed)[2])[:-1])
    with pytest.raises(ConfideError):
        client.ask()
    assert b"[DONE]" not in client.shown
    assert client.relay.last_receipt is None


def test_a_stripped_receipt_raises_before_done(client: Client) -> None:
    """An answer without its trailer is ReceiptInvalid, and [DONE] is not shown."""
    client.wire.reply = lambda sealed: (
        200,
        labels.MEDIA_RESPONSE,
        client.wire.peer.answer(sealed, said("x"), messages=[b"x"], trailers=lambda text: ()),
    )
    with pytest.raises(ReceiptInvalid):
        client.ask()
    assert b"[DONE]" not in client.shown


def test_a_stale_key_costs_one_more_try(client: Client) -> None:
    """400, then evidence of another keyset: sealed once more with the same confide-nonce."""
    old, new = client.wire.peer, Peer()
    nonces: list[str] = []

    def reply(sealed: bytes) -> Any:
        peer = new if nonces else old
        answer = peer.answer(sealed, said("ok"), messages=[b"ok"])
        nonces.append(peer.fields[labels.FIELD_NONCE])
        client.wire.peer = new
        return (400, labels.MEDIA_PROBLEM, []) if peer is old else (200, labels.MEDIA_RESPONSE, answer)

    client.wire.reply = reply
    client.ask()
    assert client.shown == b"".join(said("ok"))
    assert len(nonces) == 2
    assert nonces[0] == nonces[1]


def test_a_400_that_stays_is_repeated_once(client: Client) -> None:
    """The same keyset again: the same bytes once more. Another keyset each time: one more sealing. Then an end."""
    client.wire.reply = lambda sealed: (400, labels.MEDIA_PROBLEM, [])
    with pytest.raises(RelayRefused):
        client.ask()
    assert (len(client.wire.seen), len(client.wire.fetched)) == (2, 3)

    def reply(sealed: bytes) -> Any:
        client.wire.peer = Peer()
        return 400, labels.MEDIA_PROBLEM, []

    client.wire.reply = reply
    with pytest.raises(RelayRefused):
        client.ask()
    assert len(client.wire.seen) == 4


@pytest.mark.parametrize("url", ["http://elsewhere.test/v1/x", "https://gateway.test/v1/x"])
def test_other_places_are_out_of_reach(client: Client, url: str) -> None:
    """A request to another origin is refused before anything is fetched."""
    with pytest.raises(LocalStateError):
        client.ask(url)
    assert client.wire.fetched == client.wire.seen == []


def test_network_faults_have_our_names(client: Client) -> None:
    """Nobody there: RelayUnreachable. Broken off within the answer: Truncated. A time-out keeps its own name."""

    def unreachable(sealed: bytes) -> Any:
        raise client.module.ConnectError("no")

    def slow(sealed: bytes) -> Any:
        raise client.module.ReadTimeout("slow")

    def broken(sealed: bytes) -> Any:
        def chunks() -> Iterator[bytes]:
            yield from list(good(sealed)[2])[:2]
            raise client.module.ReadError("gone")

        return 200, labels.MEDIA_RESPONSE, chunks()

    good = client.wire.reply
    for reply, error in (
        (unreachable, RelayUnreachable),
        (slow, client.module.ReadTimeout),
        (broken, Truncated),
    ):
        client.wire.reply = reply
        with pytest.raises(error) as caught:
            client.ask()
        # An HTTP library's own text may quote what the gateway sent in clear.
        assert caught.value.__cause__ is None


def test_an_abandoned_stream_closes_the_way(client: Client) -> None:
    """Leaving a stream early closes the outer response and leaves no receipt."""
    if client.asynchronous:

        async def leave() -> None:
            async with (
                client.module.AsyncClient(transport=client.transport) as http,
                http.stream("POST", URL, json={}) as response,
            ):
                parts: AsyncIterator[bytes] = response.aiter_raw()
                assert await anext(parts)

        asyncio.run(leave())
    else:
        with (
            client.module.Client(transport=client.transport) as http,
            http.stream("POST", URL, json={}) as response,
        ):
            assert next(response.iter_raw())
    assert client.wire.closed == 1
    assert client.relay.last_receipt is None


@pytest.mark.parametrize("client", ["httpx2-async", "httpx-async"], indirect=True)
def test_many_tasks_share_one_verification(client: Client) -> None:
    """Tasks that start at once verify once."""

    async def run() -> None:
        async with client.module.AsyncClient(transport=client.transport) as http:
            answers = await asyncio.gather(*(http.post(URL, json={}) for _ in range(6)))
        assert [answer.content for answer in answers] == [STREAM] * 6

    asyncio.run(run())
    assert len(client.wire.fetched) == 1


def test_trio_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under trio the same answer comes, over a pool of that loop's own."""
    trio = pytest.importorskip("trio", reason="trio is not installed: no client was run under it")
    client = Client(httpx2, True, monkeypatch)
    pools = Pools(object)

    async def run() -> object:
        async with httpx2.AsyncClient(transport=client.transport) as http:
            assert (await http.post(URL, json={})).content == STREAM
        assert pools.of_loop() is pools.of_loop()
        return pools.of_loop()

    assert trio.run(run) is not trio.run(run)
    assert len(client.wire.fetched) == 1
