"""What every measured server and its driver share. It needs uvicorn alone, so every peer's environment can run it.

A script that uses it is a server (`serve`: prints one line of JSON, then serves) or a client that is told how much
to do (`drive READY`: reads "request N" or "stream N", does it, answers "done").
"""

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Exchange = Callable[[], None]


def padded(head: bytes, tail: bytes, length: int) -> bytes:
    """Fill the middle so that the whole is `length` bytes."""
    return head + b"x" * (length - len(head) - len(tail)) + tail


REQUEST = padded(b'{"messages":[{"role":"user","content":"', b'"}]}', 1024)
REPLY = padded(b'{"object":"chat.completion","choices":[{"message":{"content":"', b'"}}]}', 1280)
# What our own API sends for a token of 16 letters, and what OpenAI does.
EVENT = padded(b'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"', b'"}}]}\n\n', 256)
STREAM_CHUNKS = 64
PATH_REQUEST = "/v1/request"
PATH_STREAM = "/v1/stream"
PATH_PACED = "/v1/paced"
PAUSE_S = 0.001
PACED = 1_000_003  # the seed that asks for it
PROMPT = "x" * 900


async def read_body(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


async def plain_app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer PATH_REQUEST with a kilobyte, PATH_STREAM with 64 events, PATH_PACED with such as come one by one."""
    await read_body(receive)
    paced = scope["path"].startswith(PATH_PACED)
    streams = paced or scope["path"].startswith(PATH_STREAM)
    kind = b"text/event-stream" if streams else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if streams:
        for _ in range(STREAM_CHUNKS):
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
            if paced:
                await asyncio.sleep(PAUSE_S)
    await send({"type": "http.response.body", "body": b"" if streams else REPLY})


def serve(app: App, ready: Mapping[str, str] | None = None, *, lifespan: bool = False) -> None:
    """Serve on any free loopback port until a signal comes."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    print(json.dumps({"ready": True, "url": url, **(ready or {})}), flush=True)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on" if lifespan else "off",
        log_level="error",
        access_log=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


def drive(request: Exchange, stream: Exchange) -> None:
    """Do what standard input says, one exchange after another."""
    exchanges = {"request": request, "stream": stream}
    for line in sys.stdin:
        kind, count = line.split()
        for _ in range(int(count)):
            exchanges[kind]()
        print("done", flush=True)
