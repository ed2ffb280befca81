"""Answers satisfy OpenAI's own types."""

import json

import pytest
from confide_enclave.api import Api, ApiRequest
from confide_enclave.errors import Refusal
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.fakes.engine import ScriptedEngine

pytestmark = pytest.mark.anyio

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "one two"}]}
TEXT = {"model": "scripted", "prompt": "one two"}


async def ask(engine: ScriptedEngine, path: str, body=None, method="POST", flush_tokens=1):
    """Return the answer and the events of all its batches."""
    api = Api([engine], "fp_x", clock=lambda: 1_760_000_000.5, random=lambda n: b"\x07" * n)
    encoded = b"" if body is None else json.dumps(body).encode()
    answer = await api.answer(ApiRequest(method, path, encoded, flush_tokens, bytes(32), ""))
    events = list(answer.first)
    if answer.rest is not None:
        async for batch in answer.rest:
            events += batch
    return answer, events


async def test_a_chat_completion_has_every_key():
    """Strictly validated, and the keys that only strict clients miss are there."""
    _, (body,) = await ask(ScriptedEngine(), "/v1/chat/completions", CHAT)
    tree = json.loads(body)
    parsed = ChatCompletion.model_validate(tree, strict=True)
    assert parsed.choices[0].message.content == "Paris is the capital."
    assert parsed.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 2,
        "completion_tokens": 5,
        "total_tokens": 7,
    }
    assert tree["choices"][0]["logprobs"] is None
    assert tree["choices"][0]["message"]["refusal"] is None
    assert parsed.choices[0].finish_reason == "stop"


async def test_a_text_completion_has_every_key():
    """The older endpoint, its default of 16 tokens included."""
    answer, (body,) = await ask(ScriptedEngine(["a"] * 20), "/v1/completions", TEXT)
    parsed = Completion.model_validate(json.loads(body), strict=True)
    assert (parsed.choices[0].text, parsed.choices[0].finish_reason) == ("a" * 16, "length")
    assert answer.record.messages == ["a" * 16]


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("flush_tokens", [1, 8])
@pytest.mark.parametrize(("path", "base"), [("/v1/chat/completions", CHAT), ("/v1/completions", TEXT)])
async def test_streams_are_openais(path, base, usage, flush_tokens):
    """Role first, text, a finish reason, usage where asked for, [DONE]."""
    body = {**base, "stream": True}
    if usage:
        body["stream_options"] = {"include_usage": True}
    answer, events = await ask(ScriptedEngine(), path, body, flush_tokens=flush_tokens)
    assert events.pop() == b"data: [DONE]\n\n"
    trees = [json.loads(event.removeprefix(b"data: ")) for event in events]
    for tree in trees:
        assert ("usage" in tree) is usage
        if "chat" in path:
            ChatCompletionChunk.model_validate(tree, strict=True)
    if usage:
        last = trees.pop()
        assert (last["choices"], last["usage"]["total_tokens"]) == ([], 7)
    assert [tree["choices"][0]["finish_reason"] for tree in trees] == [None] * (len(trees) - 1) + ["stop"]
    assert len(trees) == (6 if flush_tokens == 1 else 2)
    assert answer.record.messages == ["Paris is the capital."]
    if "chat" in path:
        assert trees[0]["choices"][0]["delta"]["role"] == "assistant"


async def test_sampling_reaches_the_engine_and_the_record():
    """What was asked for is what is done and signed."""
    engine = ScriptedEngine()
    body = {**CHAT, "temperature": 0.5, "top_p": 0.25, "seed": -7, "stop": ["x"], "max_tokens": 3}
    answer, (text,) = await ask(engine, "/v1/chat/completions", body)
    sampling = engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.stop) == (0.5, 0.25, -7, ("x",))
    assert answer.record.sampling == sampling
    assert json.loads(text)["choices"][0]["finish_reason"] == "length"


async def test_a_seed_is_drawn_where_none_is_given():
    """The receipt can always name one."""
    engine = ScriptedEngine()
    await ask(engine, "/v1/chat/completions", CHAT)
    assert engine.requests[0].sampling.seed == int.from_bytes(b"\x07" * 6)


@pytest.mark.parametrize(
    ("changes", "flush_tokens", "guesses"),
    [({}, 8, True), ({"stream": True}, 1, True), ({"stream": True}, 8, False), ({"speculate": False}, 1, False)],
)
async def test_what_is_guessed_does_not_show_in_a_shaped_stream(changes, flush_tokens, guesses):
    """The engine guesses ahead, but not where the pace of a stream would tell, nor where it shall not."""
    engine = ScriptedEngine()
    await ask(engine, "/v1/chat/completions", {**CHAT, **changes}, flush_tokens=flush_tokens)
    assert engine.requests[0].speculate is guesses


async def test_models_are_listed():
    """One model, by list and by name."""
    _, (listed,) = await ask(ScriptedEngine(), "/v1/models", method="GET")
    _, (single,) = await ask(ScriptedEngine(), "/v1/models/scripted", method="GET")
    assert json.loads(listed) == {"object": "list", "data": [json.loads(single)]}
    assert Model.model_validate(json.loads(single), strict=True).id == "scripted"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/chat/completions", {**CHAT, "model": "gpt-4"}, 404, "model_not_found"),
        ("GET", "/v1/models/gpt-4", None, 404, "model_not_found"),
        ("GET", "/v1/chat/completions", None, 405, "method_not_allowed"),
        ("POST", "/v1/models", {}, 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", {"model": "m", "input": "x"}, 404, "model_not_found"),
        ("GET", "/", None, 404, "not_found"),
        ("POST", "/v1/chat/completions?x=1", CHAT, 404, "not_found"),
    ],
)
async def test_other_calls_are_refused(method, path, body, status, code):
    """Each with its status and code; the engine is not asked."""
    engine = ScriptedEngine()
    with pytest.raises(Refusal) as caught:
        await ask(engine, path, body, method)
    assert (caught.value.status, caught.value.name) == (status, code)
    assert not engine.requests
