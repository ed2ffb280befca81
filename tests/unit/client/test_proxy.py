"""The proxy's own server, without a gateway: what is slow, odd or cut, and what it keeps."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from confide import relay as relay_module
from confide.proxy import serve
from confide.proxy.app import Bounds, ProxyApp
from confide.proxy.guard import Guard
from confide_protocol.errors import ConfigError, Truncated

from tests.fakes.peer import DONE, Wire, a_peer

TOKEN = "confide-local-" + "t" * 32
AUTHORIZED = f"Authorization: Bearer {TOKEN}\r\n"
SHOWN = (
    "completion_tokens", "issued_text", "model", "outcome", "prompt_tokens", "sealed_request_sha256", "status",
)  # fmt: skip


class CutStream(httpx2.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'data: {"choices":[]}\n\n'
        raise Truncated

    async def aclose(self) -> None:
        pass


class Cutting:
    """A transport whose answers begin, and are cut."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=CutStream())


def served(test: Callable[[ProxyApp, int], Awaitable[None]], transport: Any = None) -> None:
    """Run `test` before a proxy that listens."""
    bounds = Bounds(head_timeout_s=0.3)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    async def run() -> None:
        app = ProxyApp(a_peer().relay(), Guard.on_port(port, (TOKEN,)), bounds, lambda text: None)
        if transport is not None:
            app._transport = transport
        server = serve._Server(app, bounds, "")
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await test(app, port)
        finally:
            server.should_exit = True
            await task

    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        asyncio.run(run())
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)


def head(port: int, target: str, more: str = "Connection: close\r\n", method: str = "POST") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{AUTHORIZED}{more}\r\n".encode()


async def ask(port: int, data: bytes) -> bytes:
    """Send, and return all that comes until the proxy closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 3)
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.close()


def test_a_head_that_does_not_end_is_dropped() -> None:
    """No byte, half a head, and half a second head after an answer: each connection is closed in time."""

    async def test(app: ProxyApp, port: int) -> None:
        whole = head(port, "/healthz", "", "GET")
        assert await ask(port, b"") in (b"", b"reset")
        assert await ask(port, whole[:20]) in (b"", b"reset")
        await ask(port, whole + whole[:20])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(whole)
            assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"}"), 3)
            await asyncio.sleep(0.5)  # silence between two requests is for the keep-alive's bound
        writer.write(whole[:20])
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 3)
        writer.close()

    served(test)


def test_a_stream_that_is_cut_prints_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The reason is reported in one line of ours; the server says nothing more."""

    async def test(app: ProxyApp, port: int) -> None:
        raw = await ask(port, head(port, "/v1/x", "Content-Length: 2\r\n") + b"{}")
        assert b'"truncated"' in raw
        assert not raw.endswith(b"0\r\n\r\n")

    served(test, Cutting())
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


@pytest.mark.parametrize("target", ["%2Fv1%2F@evil.test/x", "/%761/x", "http://evil.test/v1/x"])
def test_only_what_is_plainly_below_v1_is_sealed(target: str) -> None:
    """A path that only means /v1 once decoded is none of the proxy's."""

    async def test(app: ProxyApp, port: int) -> None:
        raw = await ask(port, head(port, target, "Content-Length: 0\r\nConnection: close\r\n"))
        assert b" 404 " in raw.splitlines()[0]

    served(test, Cutting())


def test_what_is_kept_holds_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an answer the proxy holds claims as JSON's types; the relay's last receipt is gone."""
    peer = a_peer()
    wire = Wire(peer, httpx2)
    monkeypatch.setattr(relay_module, "fetch_evidence", wire.fetch)
    monkeypatch.setattr("confide.transport._Sealed._pool", lambda *_: wire)

    async def test(app: ProxyApp, port: int) -> None:
        body = b'{"stream":true}'
        more = f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        assert DONE in await ask(port, head(port, "/v1/chat/completions", more) + body)
        assert [receipt["outcome"] for receipt in app.receipts] == ["complete"]
        assert "Paris" not in json.dumps(list(app.receipts))
        assert app.relay.last_receipt is None
        await ask(port, head(port, "/v1/x", "confide-nonce: 1\r\nContent-Length: 0\r\nConnection: close\r\n"))
        assert app.last_fault is not None
        assert app.last_fault[0] == "local_state"

    served(test)


@pytest.mark.parametrize("page", ["/", "/status", "/attestation"])
def test_a_stranger_sees_nothing_of_what_was_asked(page: str) -> None:
    """Receipts and the last refusal are for callers with the token; on a port without tokens for nobody."""

    async def test(app: ProxyApp, port: int) -> None:
        app.receipts.append({"CANARY": 1, **dict.fromkeys(SHOWN, "CANARY")})
        app.last_fault = "CANARY", "CANARY"
        whole = head(port, page, method="GET")
        stranger = whole.replace(AUTHORIZED.encode(), b"")
        assert (b"CANARY" in await ask(port, whole)) is (page != "/attestation")
        assert b"CANARY" not in await ask(port, stranger)
        assert b"CANARY" not in await ask(port, whole.replace(b"tt", b"xx"))
        app._guard = Guard.on_port(port)
        assert b"CANARY" not in await ask(port, stranger)
        assert b"CANARY" not in await ask(port, whole)

    served(test)
    assert Guard(frozenset()).knows({})


def test_a_busy_proxys_socket_is_left_alone(tmp_path: Path) -> None:
    """A listener too busy to take a connection is alive: its socket stays, and the second proxy says so."""
    path = tmp_path / "confide.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        try:
            for each in crowd:
                each.setblocking(False)
                each.connect_ex(str(path))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(serve, "ASK_TIMEOUT_S", 0.1)
                with pytest.raises(ConfigError, match="--socket"), serve.listening(serve.Place(path=path)):
                    pass
        finally:
            for each in crowd:
                each.close()
        assert path.exists()
    with serve.listening(serve.Place(path=path)):
        assert os.stat(path).st_mode & 0o777 == 0o600
