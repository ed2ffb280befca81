"""Fuzz what an engine in another process says: only EngineError may leave its reader."""

import json
from collections.abc import Callable

from confide_enclave.engine import Sampling
from confide_enclave.remote.answer import Answer
from confide_enclave.remote.http import _Response
from confide_enclave.remote.wire import read_event, read_models, read_version
from confide_protocol.errors import EngineError, TooLarge
from confide_protocol.sse import EventSplitter

from tests.unit.enclave.remote.fake import Server
from tests.unit.enclave.remote.support import tokens

PROMPT, LIMIT, MAX_BYTES = [1, 5, 6], 8, 1 << 16
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def remote_answer(data: bytes) -> None:
    """Read events; the counts stay within what was asked for, and a whole answer has one end."""
    sampling = Sampling(0.0, 1.0, LIMIT, 1, ("stop",), logprobs=2)
    answer, splitter = Answer("toy", PROMPT, LIMIT, sampling, tokens()), EventSplitter(MAX_BYTES)
    count, ended = 0, False
    try:
        for event in splitter.push(data):
            if (chunk := read_event(event)) is None or (delta := answer.take(chunk)) is None:
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
    for read in (read_models, read_version):
        try:
            read(data)
        except EngineError:
            continue


def seeds() -> dict[str, list[bytes]]:
    asked = {"prompt": PROMPT, "max_tokens": LIMIT, "logprobs": 2}
    events = Server([10, 11, 12]).events(asked)
    said = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    chunked = HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(said), said)
    models = json.dumps({"data": [{"id": "toy", "max_model_len": 9}], "version": "1"}).encode()
    return {"remote_answer": [said], "remote_http": [chunked, HEAD], "remote_documents": [models]}


TARGETS: dict[str, Callable[[bytes], None]] = {
    "remote_answer": remote_answer,
    "remote_http": remote_http,
    "remote_documents": remote_documents,
}
