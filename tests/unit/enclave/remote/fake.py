"""A small server that speaks as vLLM, SGLang or llama.cpp over a real socket, with every fault one could have.

Also a program of its own, with the arguments that the enclave gives; it needs nothing but Python.
"""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

VERSION = "0.32.0"
END_ID = 2


@dataclass
class Server:
    """`ids` are what it answers, an end token after them; `spoil` changes each event, or drops it (None).

    `kind` is the server that it speaks as; `grammars`: it follows llguidance's; `caches`: prompts, for everybody;
    `spell` are its tokens' bytes.
    """

    ids: list[int]
    kind: str = "vllm"
    grammars: bool = True
    caches: bool = False
    spell: dict[int, bytes] = field(default_factory=dict)
    model: str = "toy"
    version: str = VERSION
    max_model_len: int = 4104
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
    async def at(self, path: str | None = None, port: int = 0) -> AsyncIterator[str]:
        """Serve on a unix socket, or on loopback; give the url."""
        if path is not None:
            # Bound by hand, as vLLM does: a socket that is left over is in the way.
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            server, url = await asyncio.start_unix_server(self._serve, sock=listener), f"unix:{path}"
        else:
            server = await asyncio.start_server(self._serve, "127.0.0.1", port)
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
        models = {"data": [{"id": self.model, "max_model_len": self.max_model_len, "extra": 1}]}
        documents: dict[str, Any] = {
            "vllm": {"/version": {"version": self.version}},
            "sglang": {"/server_info": {"version": self.version, "disable_radix_cache": not self.caches}},
            "llama.cpp": {"/props": native_props(self.max_model_len, self.version)},
        }[self.kind]
        asks = "/completion" if self.kind == "llama.cpp" else "/v1/completions"
        documents["/v1/models"] = models
        if path == "/health":
            await self._plain(writer, self.health, b"")
        elif path != "/version" and self.api_key and fields.get("authorization") != f"bearer {self.api_key}":
            await self._plain(writer, 401, b'{"error":"no"}')
        elif path in documents:
            await self._plain(writer, 200, json.dumps(documents[path]).encode())
        elif path == asks:
            asked = json.loads(body)
            if not self.grammars and "grammar" in asked:
                await self._plain(writer, 400, b'{"error":{"message":"failed to parse grammar"}}')
                return
            self.bodies.append(asked)
            await self._complete(asked, reader, writer)
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
        last = b"" if self.kind == "llama.cpp" else b"data: [DONE]\n\n"
        writer.write((b"%x\r\n%b\r\n" % (len(last), last) if last else b"") + b"0\r\n\r\n")
        await writer.drain()
        await reader.read()

    def events(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Return an answer's events, one token each, and the counts."""
        if self.kind == "llama.cpp":
            drawn = [self._only] if "grammar" in asked and asked["n_predict"] == 1 else self.ids
            return native_events(drawn, asked, self.spell, self.model)
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

    @property
    def _only(self) -> int:
        """Return the token that spells "a", which the enclave's question at the start allows alone."""
        return next(token for token, data in self.spell.items() if data == b"a")


def native_props(context: int, version: str) -> dict[str, Any]:
    return {
        "build_info": version,
        "total_slots": 1,
        "default_generation_settings": {"n_ctx": context, "params": {}},
    }


def native_events(
    ids: Sequence[int], asked: Mapping[str, Any], spell: Mapping[int, bytes] | None = None, model: str = "toy"
) -> list[dict[str, Any]]:
    """Return an answer's events: a token each, but for tokens that leave a character incomplete, and the counts.

    `spell` are the tokens' bytes; those that are not in it spell "x".
    """
    drawn = [*ids, END_ID][: asked["n_predict"]]
    counts = {"tokens_evaluated": len(asked["prompt"]), "tokens_predicted": 0}
    said, held = [], b""
    for number, token in enumerate(drawn):
        held += b"" if token == END_ID else (spell or {}).get(token, b"x")
        try:
            content = held.decode()
        except UnicodeDecodeError:
            continue
        held = b""
        event = {"index": 0, "content": content, "tokens": [token], "stop": False, "id_slot": 0, **counts}
        event["tokens_predicted"] = number + 1
        if asked.get("n_probs"):
            top = [{"id": each, "logprob": value, "token": "canary", "bytes": []} for each, value in
                   ((3, -0.25), (token, -0.5), (4, -2.0))]  # fmt: skip
            event["completion_probabilities"] = [
                {"id": token, "logprob": -0.5, "token": "canary", "bytes": [], "top_logprobs": top}
            ]
        said.append(event)
    kind = "eos" if drawn[-1] == END_ID else "limit"
    last = {"index": 0, "content": "", "tokens": [], "stop": True, "model": model, "prompt": "canary", **counts}
    return [*said, last | {"tokens_predicted": len(drawn), "stop_type": kind, "truncated": False}]


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
    while os.path.exists(environment.get("FAKE_HOLD", "")):
        time.sleep(0.02)
    if "FAKE_NOTES" in environment:
        with open(environment["FAKE_NOTES"], "w") as file:
            json.dump({"argv": sys.argv[1:], "environment": {**environment}, "pid": os.getpid()}, file)


def read_key(path: str) -> str:
    with open(path) as file:
        return file.read().strip().removeprefix("api-key: ")


async def main() -> None:
    """Serve as the enclave asks; `FAKE_*` variables choose the fault."""
    given, environment = dict(zip(sys.argv[1:], sys.argv[2:], strict=False)), os.environ
    await asyncio.sleep(float(environment.get("FAKE_LOAD_S", "0")))
    server = Server(
        [int(token) for token in environment.get("FAKE_IDS", "10,11").split(",")],
        version=environment.get("FAKE_VERSION", VERSION),
        step_s=float(environment.get("FAKE_STEP_S", "0")),
    )
    place, port = given.get("--uds"), 0
    server.model = given.get("--served-model-name") or given["--alias"]
    if place is not None:
        server.max_model_len, server.api_key = int(given["--max-model-len"]), environment["VLLM_API_KEY"]
    elif "--config" in given:
        server.kind, server.max_model_len, port = "sglang", int(given["--context-length"]), int(given["--port"])
        server.api_key = read_key(given["--config"])
    else:
        server.kind, server.api_key, place = "llama.cpp", environment["LLAMA_API_KEY"], given["--host"]
        server.max_model_len, server.grammars = int(given["--ctx-size"]) // int(given["--parallel"]), False
    async with server.at(place, port):
        print("serving", flush=True)
        while True:
            await asyncio.sleep(0.05)
            print("canary" if server.bodies else "idle", flush=True)


if __name__ == "__main__":
    begin()
    asyncio.run(main())
