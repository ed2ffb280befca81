"""What passes between the sealed session and the API, and OpenAI's error shape."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal

from confide_protocol.errors import ConfideError, EngineError

from confide_enclave.engine import Sampling
from confide_enclave.errors import Refusal

MEDIA_JSON = "application/json"
MEDIA_EVENTS = "text/event-stream"


@dataclass(frozen=True)
class ApiRequest:
    """A request that authenticated to its last chunk. `flush_tokens` is the shape's rule for merging deltas.

    `cache_lasts`: the client sent a key from which the salt follows, so that more requests may come with it.
    """

    method: str
    path: str
    body: bytes = field(repr=False)
    flush_tokens: int
    cache_salt: bytes = field(repr=False)
    account: str
    cache_lasts: bool = False


@dataclass
class Record:
    """What the receipt says of an answer; filled while the answer is made. `model`: which one answers, if any."""

    model: str = ""
    outcome: Literal["complete", "refused", "aborted"] = "complete"
    sampling: Sampling | None = None
    messages: list[str] = field(default_factory=list, repr=False)
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Answer:
    """A head, a first batch of events and the batches after it. Each event is one transcript chunk.

    Each batch is flushed once. `rest` has been started, so that closing it always stops the engine; it is None
    for a body that is no stream, which is one batch of one event.
    """

    status: int
    content_type: str
    first: tuple[bytes, ...] = field(repr=False)
    rest: AsyncGenerator[tuple[bytes, ...], None] | None = field(repr=False)
    record: Record


def to_json(value: Any) -> bytes:  # noqa: ANN401
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: Any) -> bytes:  # noqa: ANN401
    """One server-sent event; JSON escapes every line break, so the payload is one line."""
    return b"data: " + to_json(value) + b"\n\n"


def plain(status: int, value: Any, record: Record) -> Answer:  # noqa: ANN401
    return Answer(status, MEDIA_JSON, (to_json(value),), None, record)


def error_body(fault: ConfideError) -> dict[str, Any]:
    """OpenAI's error shape. Our messages are constants: they repeat nothing that the caller or the engine said."""
    if isinstance(fault, Refusal):
        message, kind, param, code = fault.message, fault.kind, fault.param, fault.name
    else:
        kind = "server_error" if fault.http_status >= 500 else "invalid_request_error"
        # An engine's own text may hold the prompt; its class says enough.
        message = fault.reason if isinstance(fault, EngineError) else str(fault)
        param, code = None, fault.code
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def status_of(fault: ConfideError) -> int:
    return fault.status if isinstance(fault, Refusal) else fault.http_status


def refuse(fault: ConfideError, record: Record | None = None) -> Answer:
    """Answer with an error; its receipt says `refused`."""
    record = record or Record()
    record.outcome = "refused"
    return plain(status_of(fault), error_body(fault), record)
