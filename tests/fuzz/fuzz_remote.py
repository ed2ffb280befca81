"""Fuzz what an engine in another process says: only EngineError may leave its reader."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confide_enclave.engine import Sampling
from confide_enclave.remote.answer import Answer
from confide_enclave.remote.chunk import Wire
from confide_enclave.remote.http import _Response
from confide_enclave.remote.servers import SERVERS
from confide_protocol.errors import EngineError, TooLarge
from confide_protocol.sse import EventSplitter

from tests.unit.enclave.remote.fake import Server, native_events, native_props
from tests.unit.enclave.remote.support import tokens

PROMPT, LIMIT, MAX_BYTES = [1, 5, 6], 8, 1 << 16
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def remote_answer(data: bytes) -> None:
    """Read events as each server's; the counts stay within what was asked for, and a whole answer has one end."""
    for server in SERVERS.values():
        sampling = Sampling(0.0, 1.0, LIMIT, 1, ("stop",), logprobs=2 if server.logprobs else None)
        answer = Answer("toy", PROMPT, LIMIT, sampling, tokens(), repeats_prompt=server.repeats_prompt)
        _read_all(server.wire, answer, data)


def _read_all(wire: Wire, answer: Answer, data: bytes) -> None:
    splitter, count, ended = EventSplitter(MAX_BYTES), 0, False
    try:
        for event in splitter.push(data):
            if (chunk := wire.read(event)) is None or (delta := answer.take(chunk)) is None:
                continue
            assert count <= delta.completion_tokens <= LIMIT
            assert not ended
            count, ended = delta.completion_tokens, delta.finish_reason is not None
            if ended:
                return
    except (EngineError, TooLarge):
        return


def remote_http(data: bytes) -> None:
    response = _Response()
    try:
        # In pieces: a head may come so.
        for at in range(0, len(data), 97):
            response.push(data[at : at + 97])
    except EngineError:
        return


def remote_documents(data: bytes) -> None:
    async def get(_path: str) -> bytes:
        return data

    for server in SERVERS.values():
        with suppress(EngineError):
            asyncio.run(server.wire.identify(get))


def seeds() -> dict[str, list[bytes]]:
    asked = {"prompt": PROMPT, "max_tokens": LIMIT, "logprobs": 2}
    said = _spelled(Server([10, 11, 12]).events(asked))
    native = _spelled(native_events([10, 11, 12], {"prompt": PROMPT, "n_predict": LIMIT, "n_probs": 2}))
    chunked = HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(said), said)
    models = json.dumps(
        {"data": [{"id": "toy", "max_model_len": 9}], "version": "1", **native_props(9, "1")}
    ).encode()
    return {"remote_answer": [said, native], "remote_http": [chunked, HEAD], "remote_documents": [models]}


def _spelled(events: list[dict[str, Any]]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "remote_answer": remote_answer,
    "remote_http": remote_http,
    "remote_documents": remote_documents,
}
