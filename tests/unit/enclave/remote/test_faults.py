"""Every way in which a server may fail amid an answer: one typed error, no text of its own, and the next works."""

import json
import math

import pytest
from confide_protocol.errors import EngineError

from tests.unit.enclave.remote.fake import Server
from tests.unit.enclave.remote.support import answer, connected, request, spell, text

pytestmark = pytest.mark.anyio
CANARY = "canary"
END = 2


def on(number: int, change):
    """Spoil one event: `change` gets it and returns what is sent."""
    return lambda at, event: change(event) if at == number else event


def choice(**changes):
    return lambda event: {**event, "choices": [event["choices"][0] | changes]}


def _empty(event) -> bytes:
    return b"data: " + json.dumps(choice(token_ids=[])(event)).encode() + b"\n\n"


SPOILED = {
    "no json": (on(1, lambda _: b"data: {canary\n\n"), "engine_malformed"),
    "no event": (on(1, lambda _: b"event: canary\ndata: {}\n\n"), "engine_malformed"),
    "no utf-8": (on(1, lambda _: b'data: {"model": "\xff"}\n\n'), "engine_malformed"),
    "deep": (on(1, lambda _: b"data: " + b"[" * 9_000 + b"\n\n"), "engine_malformed"),
    "another model": (on(1, lambda event: event | {"model": CANARY}), "engine_malformed"),
    "another prompt": (on(0, choice(prompt_token_ids=[1, 2, 3])), "engine_malformed"),
    "no prompt": (on(0, choice(prompt_token_ids=None)), "engine_malformed"),
    "another choice": (on(1, choice(index=1)), "engine_malformed"),
    "a token beyond": (on(1, choice(token_ids=[1 << 30])), "engine_malformed"),
    "a negative token": (on(1, choice(token_ids=[-1])), "engine_malformed"),
    "text for a token": (on(1, choice(token_ids=["1"])), "engine_malformed"),
    "too many tokens": (on(1, choice(token_ids=[3] * 99)), "engine_malformed"),
    "after the end": (on(1, choice(token_ids=[END, 3])), "engine_malformed"),
    "an end without a reason": (on(1, choice(token_ids=[END])), "engine_malformed"),
    "an early length": (on(1, choice(finish_reason="length")), "engine_malformed"),
    "more after the reason": (on(1, choice(token_ids=[], finish_reason="stop")), "engine_malformed"),
    "given up": (on(1, choice(finish_reason="abort")), "engine_lost"),
    "an end in words": (on(1, choice(finish_reason="stop")), "engine_malformed"),
    "counts that differ": (
        lambda _, event: event | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        if not event["choices"]
        else event,
        "engine_malformed",
    ),
    "no counts": (lambda _, event: event if event["choices"] else None, "engine_malformed"),
    "counts too early": (on(1, lambda event: event | {"choices": []}), "engine_malformed"),
    "an error": (on(1, lambda _: b'data: {"error": {"message": "canary"}}\n\n'), "engine_lost"),
    "done too early": (on(1, lambda _: b"data: [DONE]\n\n"), "engine_malformed"),
    "a huge line": (on(1, lambda _: b"data: " + b"x" * 200_000), "engine_malformed"),
    "events without end": (on(1, lambda event: _empty(event) * 500), "engine_malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
async def test_a_spoiled_event(name) -> None:
    """One error with a code, which repeats nothing; then the same server's good answer is taken."""
    server = Server(spell("abcdef"))
    spoil, code = SPOILED[name]
    async with connected(server) as engine:
        server.spoil = spoil
        with pytest.raises(EngineError) as caught:
            await answer(engine)
        assert caught.value.code == code
        assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.__cause__}"
        server.spoil = lambda _, event: event
        assert text(await answer(engine)) == "abcdef"


@pytest.mark.parametrize(("status", "code"), [(400, "engine_refused"), (404, "engine_refused"),
    (429, "capacity_exceeded"), (500, "engine_lost"), (503, "engine_lost")])  # fmt: skip
async def test_a_refusal_by_status(status, code) -> None:
    """What it says of it is not read."""
    server = Server(spell("ab"), status=200)
    async with connected(server) as engine:
        server.status = status
        with pytest.raises(EngineError) as caught:
            await answer(engine)
        assert caught.value.code == code
        assert CANARY not in str(caught.value)


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_cut_stream(after) -> None:
    """Before the first token and amid them."""
    server = Server(spell("abcdef"), cut_after=after)
    async with connected(server) as engine:
        with pytest.raises(EngineError) as caught:
            await answer(engine)
    assert caught.value.code == "engine_lost"


@pytest.mark.parametrize(
    "head",
    [b"canary\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, b"HTTP/1.1 200 OK\r\n" + b"\xff\0\r\n\r\n"],
)
async def test_what_is_no_http(head) -> None:
    """Nor is a head without end."""
    server = Server(spell("ab"), head=head)
    async with connected(server) as engine:
        with pytest.raises(EngineError) as caught:
            await answer(engine)
    assert caught.value.code in ("engine_malformed", "engine_lost")
    assert CANARY not in str(caught.value)


async def test_a_slow_drip_is_silence() -> None:
    """Bytes that make no event do not keep a request alive; a comment does not either."""
    server = Server(spell("ab"), drip_s=0.02)
    async with connected(server, first_token_timeout_s=0.2) as engine:
        with pytest.raises(EngineError) as caught:
            await answer(engine)
        assert caught.value.code == "engine_lost"
        server.drip_s, server.spoil = 0.005, on(0, lambda _: b": alive\n\n" * 99)
        with pytest.raises(EngineError) as caught:
            await answer(engine)
        assert caught.value.code == "engine_lost"


async def test_silence_between_tokens() -> None:
    """The first may take longer than the others."""
    server = Server(spell("ab"), step_s=0.3)
    async with connected(server, first_token_timeout_s=5.0, idle_timeout_s=0.1) as engine:
        with pytest.raises(EngineError) as caught:
            await answer(engine)
    assert caught.value.code == "engine_lost"


def of_logprobs(**changes):
    return lambda event: choice(logprobs=event["choices"][0]["logprobs"] | changes)(event)


@pytest.mark.parametrize(
    "change",
    [
        of_logprobs(token_logprobs=[math.nan]),
        of_logprobs(token_logprobs=[-math.inf]),
        of_logprobs(top_logprobs=[{"token_id:3": math.inf}]),
        of_logprobs(token_logprobs=[]),
        of_logprobs(token_logprobs=[None]),
        of_logprobs(tokens=["canary"]),
        of_logprobs(tokens=["token_id:77"]),
        of_logprobs(top_logprobs=[{"canary": -1.0}]),
        of_logprobs(top_logprobs=[{"token_id:999999999": -1.0}]),
        choice(logprobs=None),
    ],
)
async def test_log_probabilities_that_are_none(change) -> None:
    """Not finite, of another token, of none, or missing."""
    server = Server(spell("abc"), spoil=on(1, change))
    async with connected(server) as engine:
        with pytest.raises(EngineError) as caught:
            await answer(engine, request(logprobs=2))
    assert caught.value.code == "engine_malformed"
