"""hpke-http's own middleware and client around the plain application. Runs in an environment of its own."""

import asyncio
import json
import secrets
import ssl
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
from hpke_http import generate_key_pair
from hpke_http.middleware import PinnedKey
from hpke_http.middleware.fastapi import HPKEMiddleware
from hpke_http.middleware.httpx import HPKEAsyncClient
from loopback import (
    EVENT,
    PATH_PACED,
    PATH_REQUEST,
    PATH_STREAM,
    REPLY,
    REQUEST,
    STREAM_CHUNKS,
    drive,
    plain_app,
    serve,
)
from pairs import Exchanges, run

Coro = Coroutine[Any, Any, None]
HOST = "bench.invalid"
PSK_ID = b"bench"
KEY_ID = b"\1" * 16


class Loopback(httpx.AsyncBaseTransport):
    """The client insists on https; what leaves goes to the plain loopback port, as behind a TLS terminator."""

    def __init__(self, url: str) -> None:
        self._url, self._inner = httpx.URL(url), httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http", host=self._url.host, port=self._url.port)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def run_server() -> None:
    pair = generate_key_pair()
    psk = secrets.token_bytes(32)
    seen: set[bytes] = set()

    def admit(replay_id: bytes, deadline: int, scope: object) -> bool:
        fresh = replay_id not in seen
        seen.add(replay_id)
        return fresh

    app = HPKEMiddleware(
        plain_app,
        pair.private_key,
        KEY_ID,
        lambda psk_id, scope: psk,
        admit,
        key_use_for_s=3600,
        transport_path="/protected",
        expected_authority=HOST,
    )
    serve(app, {"public_key": pair.public_key.hex(), "psk": psk.hex()}, lifespan=False)


def sealing_client(ready: dict[str, str]) -> HPKEAsyncClient:
    """Make the client; it has to be made inside the loop that uses it."""
    return HPKEAsyncClient(
        PinnedKey(bytes.fromhex(ready["public_key"]), KEY_ID),
        bytes.fromhex(ready["psk"]),
        PSK_ID,
        endpoint=f"https://{HOST}/protected",
        transport=Loopback(ready["url"]),
    )


def sealed_client(ready: dict[str, str], runner: asyncio.Runner) -> Exchanges:
    async def connect() -> HPKEAsyncClient:
        return sealing_client(ready)

    client = runner.run(connect())

    async def request() -> None:
        answer = await client.post(f"https://{HOST}{PATH_REQUEST}", content=REQUEST)
        assert answer.content == REPLY

    async def stream(path: str) -> None:
        async with client.stream("POST", f"https://{HOST}{path}", content=REQUEST) as answer:
            blocks = [block async for block in answer.iter_sse()]
        assert blocks == [EVENT] * STREAM_CHUNKS

    return exchanges(runner, request, stream)


def plain_client(url: str, runner: asyncio.Runner) -> Exchanges:
    client = httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False)

    async def request() -> None:
        assert (await client.post(url + PATH_REQUEST, content=REQUEST)).content == REPLY

    async def stream(path: str) -> None:
        async with client.stream("POST", url + path, content=REQUEST) as answer:
            assert b"".join([data async for data in answer.aiter_bytes()]) == EVENT * STREAM_CHUNKS

    return exchanges(runner, request, stream)


def exchanges(runner: asyncio.Runner, request: Callable[[], Coro], stream: Callable[[str], Coro]) -> Exchanges:
    return {
        "request": lambda: runner.run(request()),
        "stream": lambda: runner.run(stream(PATH_STREAM)),
        "paced": lambda: runner.run(stream(PATH_PACED)),
    }


def run_driver(ready: dict[str, str]) -> None:
    with asyncio.Runner() as runner:
        made = sealed_client(ready, runner)
        drive(made["request"], made["stream"])


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        run_server()
    elif sys.argv[1] == "drive":
        run_driver(json.loads(sys.argv[2]))
    else:
        given = json.loads(sys.argv[2])
        with asyncio.Runner() as loop:
            run(
                {
                    "plain": lambda: lambda: plain_client(given["plain"], loop),
                    "sealed": lambda: lambda: sealed_client(given, loop),
                },
                *sys.argv[3:],
            )
