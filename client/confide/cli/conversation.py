"""A chat over the transport alone: no openai package is needed for the command line."""

import json
from collections.abc import Iterator, Sequence

import httpx2
from confide_protocol.errors import ConfigError, EngineError, Malformed, RelayUnreachable
from confide_protocol.sse import EventSplitter

from confide.answer import DONE
from confide.relay import Relay
from confide.transport import Transport

READ_TIMEOUT_S = 600.0
JSON = {"content-type": "application/json"}
Message = dict[str, str]


class AnswerRefused(EngineError):
    """The enclave refused the request, sealed and signed; its text is authenticated and meant for the caller."""

    code = "answer_refused"
    reason = "the enclave refused the request"


def stream_chat(
    relay: Relay, messages: Sequence[Message], *, max_tokens: int, temperature: float, model: str | None = None
) -> Iterator[str]:
    """Yield the answer's text as it comes; the iterator ends only after the receipt was verified.

    `model` None: the first of the enclave's manifest.
    Raises: ConfideError.
    """
    manifest = relay.ready().manifest
    body = {
        "model": manifest.model if model is None else model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": True,
    }
    try:
        content = json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError("prompt", "text", "is not UTF-8; check what was typed or piped") from None
    timeout = httpx2.Timeout(READ_TIMEOUT_S, connect=relay.limits.connect_timeout_s)
    try:
        with (
            httpx2.Client(transport=Transport(relay.url, relay=relay), timeout=timeout, trust_env=False) as client,
            client.stream("POST", relay.url + "/v1/chat/completions", content=content, headers=JSON) as response,
        ):
            if response.status_code != 200:
                raise AnswerRefused(_message(response.read()))
            splitter = EventSplitter()
            for data in response.iter_raw():
                for event in splitter.push(data):
                    if event != DONE:
                        yield from _text(event)
    except httpx2.TimeoutException:
        raise RelayUnreachable(f"the gateway was silent for {READ_TIMEOUT_S:.0f} s or did not connect") from None


def _text(event: bytes) -> Iterator[str]:
    tree = _parse(event.removeprefix(b"data:"))
    if "error" in tree:
        raise AnswerRefused(_message(event.removeprefix(b"data:")))
    choices = tree.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if text := choice.get("delta", {}).get("content"):
            yield text


def _message(body: bytes) -> str:
    error = _parse(body).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else AnswerRefused.reason


def _parse(data: bytes) -> dict[str, object]:
    try:
        tree = json.loads(data)
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise Malformed("the answer is not JSON")
    return tree
