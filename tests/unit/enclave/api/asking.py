"""Ask the API over any engine, and read its streams."""

import json
from typing import Any

from confide.answer import AnswerText
from confide_enclave.api import Answer, Api, ApiRequest

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "one two"}]}
PATH_CHAT, PATH_TEXT, PATH_RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


async def ask(
    engine: Any, path: str, body: Any = None, method: str = "POST", flush_tokens: int = 1, embedder: Any = None
) -> tuple[Answer, list[bytes]]:
    """Return the answer and the events of all its batches; the client reads the same messages as were recorded."""
    api = Api([engine], "fp_x", clock=lambda: 1_760_000_000.5, random=lambda n: b"\x07" * n, embedder=embedder)
    encoded = b"" if body is None else json.dumps(body).encode()
    answer = await api.answer(ApiRequest(method, path, encoded, flush_tokens, bytes(32), ""))
    events = list(answer.first)
    if answer.rest is not None:
        async for batch in answer.rest:
            events += batch
    reader = AnswerText()
    for each in events:
        (reader.body if answer.rest is None else reader.event)(each)
    assert list(reader.messages) == [message.encode() for message in answer.record.messages]
    assert reader.ended == (answer.rest is not None)
    return answer, events


def trees(events: list[bytes]) -> list[Any]:
    lines = [event.decode().rstrip("\n").rpartition("data: ")[2] for event in events]
    return [json.loads(line) for line in lines if line != "[DONE]"]
