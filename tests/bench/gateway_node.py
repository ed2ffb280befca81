"""The node behind the measured gateways: uvicorn and a bare ASGI callable, the fastest that Python serves."""

import asyncio
import json
import re
import socket
import sys

import uvicorn
import uvloop
from confide_protocol import labels

from tests.fakes.node import AttestedNode, policy_toml

CHUNKS = 64
PAUSE_S = 0.004
CHUNK = b"x" * 148 + b"\n\n"
PACED = b"paced"
HEADERS = [(b"content-type", labels.MEDIA_RESPONSE.encode())]


class Node:
    """Echoes a sealed request; answers the body `paced` with a stream at the pace of a language model."""

    def __init__(self) -> None:
        self.node = AttestedNode()

    async def __call__(self, scope, receive, send) -> None:
        if scope["path"] == labels.PATH_EVIDENCE:
            nonce = bytes.fromhex(re.fullmatch(rb"nonce=([0-9a-f]{64})", scope["query_string"])[1].decode())
            await self.reply(send, self.node.bundle(nonce), labels.MEDIA_EVIDENCE.encode())
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if body != PACED:
            await self.reply(send, body, HEADERS[0][1])
            return
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        loop = asyncio.get_running_loop()
        due = loop.time()
        for _ in range(CHUNKS):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            due += PAUSE_S
            await asyncio.sleep(due - loop.time())
        await send({"type": "http.response.body", "body": b""})

    async def reply(self, send, body: bytes, media: bytes) -> None:
        headers = [(b"content-type", media), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def main() -> None:
    app = Node()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        app, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False, date_header=False
    )
    ready = {"url": f"http://127.0.0.1:{listener.getsockname()[1]}", "path": app.node.path, "policy": policy_toml()}
    print(json.dumps(ready), flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
