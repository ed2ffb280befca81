"""A small server that speaks vLLM's completions over a real socket, and every fault that one could have.

Also a program of its own, with the arguments that the enclave gives; it needs nothing but Python.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

VERSION = "0.32.0"
END_ID = 2


@dataclass
class Server:
    """`ids` are what it answers, an end token after them; `spoil` changes each event, or drops it (None)."""

    ids: list[int]
    model: str = "toy"
    version: str = VERSION
    max_model_len: int = 4096
    api_key: str = ""
    status: int = 200
    health: int = 200
    step_s: float = 0.0
    cut_after: int | None = None
    drip_s: float = 0.0
    head: bytes = b""
    spoil: Callable[[int, dict[str, Any]], bytes | dict[str, Any] | None] = lambda _, event: event
    bodies: list[dict[str, Any]] = field(default_factory=list)
    closed: int = 0
    running: int = 0

    @asynccontextmanager
    async def at(self, path: str | None = None) -> AsyncIterator[str]:
        """Serve on a unix socket, or on loopback; give the url."""
        if path is not None:
            # Bound by hand, as vLLM does: a socket that is left over is in the way.
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            server, url = await asyncio.start_unix_server(self._serve, sock=listener), f"unix:{path}"
        else:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield url
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.running += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            await self._answer(lines[0].split()[1], fields, body, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.running -= 1
            self.closed += 1
            writer.transport.abort()

    async def _answer(
        self,
        path: str,
        fields: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        documents = {
            "/version": {"version": self.version},
            "/v1/models": {"data": [{"id": self.model, "max_model_len": self.max_model_len, "extra": 1}]},
        }
        if path == "/health":
            await self._plain(writer, self.health, b"")
        elif path.startswith("/v1") and self.api_key and fields.get("authorization") != f"bearer {self.api_key}":
            await self._plain(writer, 401, b'{"error":"no"}')
        elif path in documents:
            await self._plain(writer, 200, json.dumps(documents[path]).encode())
        elif path == "/v1/completions":
            self.bodies.append(json.loads(body))
            await self._complete(self.bodies[-1], reader, writer)
        else:
            await self._plain(writer, 404, b"")

    async def _plain(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()

    async def _complete(
        self, asked: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.status != 200:
            await self._plain(writer, self.status, b'{"error":{"message":"' + b"canary" * 9 + b'"}}')
            return
        writer.write(
            self.head or b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for number, event in enumerate(self.events(asked)):
            if number == self.cut_after:
                return
            await asyncio.sleep(self.step_s)
            spoiled = self.spoil(number, event)
            if spoiled is None:
                continue
            text = spoiled if isinstance(spoiled, bytes) else b"data: " + json.dumps(spoiled).encode() + b"\n\n"
            for at in range(0, len(text), 1 if self.drip_s else len(text)):
                piece = text[at : at + 1] if self.drip_s else text
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(self.drip_s)
        last = b"data: [DONE]\n\n"
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last))
        await writer.drain()
        await reader.read()

    def events(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Return an answer's events, one token each, and the counts."""
        ids = [*self.ids, END_ID][: asked["max_tokens"]]
        events: list[dict[str, Any]] = []
        for number, token in enumerate(ids):
            choice: dict[str, Any] = {"index": 0, "text": "canary", "token_ids": [token]}
            if number == 0:
                choice["prompt_token_ids"] = asked["prompt"]
            if asked.get("logprobs") is not None:
                top = {f"token_id:{token}": -0.5, "token_id:3": -0.25, "token_id:4": -2.0}
                named = [{"tokens": [f"token_id:{token}"], "token_logprobs": [-0.5], "top_logprobs": [top]}]
                choice["logprobs"] = named[0] | {"text_offset": [0]}
            if number == len(ids) - 1:
                choice["finish_reason"] = "stop" if token == END_ID else "length"
            events.append({"id": "x", "model": self.model, "choices": [choice]})
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": len(ids), "total_tokens": 0}
        return [*events, {"id": "x", "model": self.model, "choices": [], "usage": usage}]


def begin() -> None:
    """Count a life, and write down what it got."""
    environment = os.environ
    print("loading", flush=True)
    if "FAKE_LIVES" in environment:
        # Each life takes one away from the file; without any left it ends before it serves.
        with open(environment["FAKE_LIVES"], "r+") as file:
            left = int(file.read())
            file.seek(0)
            file.write(str(left - 1))
        if left <= 0:
            print("no more", flush=True)
            sys.exit(7)
    if "FAKE_NOTES" in environment:
        with open(environment["FAKE_NOTES"], "w") as file:
            json.dump({"argv": sys.argv[1:], "environment": {**environment}, "pid": os.getpid()}, file)


async def main() -> None:
    """Serve as the enclave asks; `FAKE_*` variables choose the fault."""
    parser = argparse.ArgumentParser()
    for name in ("--uds", "--served-model-name", "--max-model-len", "--dtype"):
        parser.add_argument(name)
    known, _ = parser.parse_known_args()
    environment = os.environ
    await asyncio.sleep(float(environment.get("FAKE_LOAD_S", "0")))
    server = Server(
        [int(token) for token in environment.get("FAKE_IDS", "10,11").split(",")],
        known.served_model_name,
        environment.get("FAKE_VERSION", VERSION),
        int(known.max_model_len),
        environment["VLLM_API_KEY"],
        step_s=float(environment.get("FAKE_STEP_S", "0")),
    )
    async with server.at(known.uds):
        print("serving", flush=True)
        while True:
            await asyncio.sleep(0.05)
            print("canary" if server.bodies else "idle", flush=True)


if __name__ == "__main__":
    begin()
    asyncio.run(main())
