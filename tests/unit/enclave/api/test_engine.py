"""The API over the real engine with a toy model: what is asked for is what comes, and comes again."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.torch_engine import TorchEngine
from confide_protocol.errors import EngineError
from openai.types.chat import ChatCompletion

from tests.fakes import gguf
from tests.unit.enclave.api.asking import PATH_CHAT, PATH_RESPONSES, PATH_TEXT, ask
from tests.unit.enclave.api.test_tools import CITY

pytestmark = pytest.mark.anyio

CHAT = {"model": "toy", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "seed": 3}
TEXT = {"model": "toy", "prompt": "the", "max_tokens": 12, "seed": 3}
CLOSED = {**CITY, "properties": {"city": {"enum": ["Rome", "Paris"]}}, "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": CLOSED}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchEngine]:
    path: Path = tmp_path_factory.mktemp("toy") / "toy.gguf"
    path.write_bytes(gguf.write({**gguf.toy_metadata(), "llama.context_length": 1024}, gguf.toy_tensors(5)))
    engine = TorchEngine.load(path, "toy", EngineLimits(max_sequences=4, context_tokens=1024, threads=1))
    yield engine
    asyncio.run(engine.close())


async def chat(engine: TorchEngine, **changes):
    _, (body,) = await ask(engine, PATH_CHAT, {**CHAT, **changes})
    return ChatCompletion.model_validate(json.loads(body), strict=True).choices


async def test_a_tool_is_called_by_a_model_that_knows_nothing(engine: TorchEngine) -> None:
    """Required: there is a call, and its arguments are the schema's."""
    (choice,) = await chat(engine, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=100)
    (call,) = choice.message.tool_calls or []
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Rome", "Paris")
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)


async def test_answers_follow_their_format(engine: TorchEngine) -> None:
    """A schema, a pattern; each of several answers, each with a seed of its own."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": CLOSED}}
    for choice in await chat(engine, response_format=schema, n=3):
        assert json.loads(choice.message.content)["city"] in ("Rome", "Paris")
        assert choice.finish_reason == "stop"
    pattern = {"type": "regex", "pattern": "[a-z]{9}-[0-9]{3}"}
    said = [choice.message.content for choice in await chat(engine, response_format=pattern, n=4)]
    assert all(re.fullmatch("[a-z]{9}-[0-9]{3}", each) for each in said)
    assert len(set(said)) == 4
    _, (body,) = await ask(
        engine,
        PATH_RESPONSES,
        {"model": "toy", "input": "hi", "text": {"format": pattern}, "max_output_tokens": 40},
    )
    assert re.fullmatch("[a-z]{9}-[0-9]{3}", json.loads(body)["output"][0]["content"][0]["text"])


async def test_the_same_seed_says_the_same_beside_others(engine: TorchEngine) -> None:
    """One of several answers is what it is in other company, its log-probabilities too."""
    asked = {"logprobs": True, "top_logprobs": 3, "temperature": 1.3, "top_p": 0.9}
    one, *_ = await chat(engine, **asked)
    first, *_ = await chat(engine, **asked, n=4)
    assert first == one


async def test_log_probabilities_are_the_tokens(engine: TorchEngine) -> None:
    """One for each token of the text; greedily, the likeliest is the one that was drawn."""
    (choice,) = await chat(engine, temperature=0, logprobs=True, top_logprobs=2)
    tokens = choice.logprobs.content
    assert b"".join(bytes(each.bytes) for each in tokens).decode(errors="replace") == choice.message.content
    assert all(each.top_logprobs[0].logprob == each.logprob <= 0 for each in tokens)
    assert all(each.top_logprobs[0].logprob >= each.top_logprobs[1].logprob for each in tokens)


async def test_bias_and_penalties_reach_the_model(engine: TorchEngine) -> None:
    """A token that is pushed hard enough is all that is said, until it may not be said again."""
    _, (body,) = await ask(engine, PATH_TEXT, {**TEXT, "logit_bias": {"70": 100}})
    said = json.loads(body)["choices"][0]["text"]
    assert len(said) == 12
    assert len(set(said)) == 1
    _, (body,) = await ask(
        engine, PATH_TEXT, {**TEXT, "temperature": 0, "frequency_penalty": 2, "logit_bias": {"70": 3}}
    )
    assert json.loads(body)["choices"][0]["text"] != said


async def test_a_token_that_the_model_does_not_have_is_refused(engine: TorchEngine) -> None:
    """Its id is not ignored."""
    with pytest.raises(EngineError) as caught:
        await ask(engine, PATH_TEXT, {**TEXT, "logit_bias": {"262": 1}})
    assert (caught.value.code, caught.value.http_status) == ("unknown_token", 400)


async def test_the_best_of_several_is_the_likeliest(engine: TorchEngine) -> None:
    """Against the log-probabilities of all."""
    _, (body,) = await ask(engine, PATH_TEXT, {**TEXT, "n": 5, "logprobs": 0})
    shown = [choice["logprobs"]["token_logprobs"] for choice in json.loads(body)["choices"]]
    scores = [sum(each) / len(each) for each in shown]
    _, (body,) = await ask(engine, PATH_TEXT, {**TEXT, "best_of": 5, "logprobs": 0})
    (best,) = json.loads(body)["choices"]
    assert best["logprobs"]["token_logprobs"] == shown[scores.index(max(scores))]
