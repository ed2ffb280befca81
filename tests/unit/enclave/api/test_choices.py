"""Several answers: seeds, budget, order, the best of them, and what ends them."""

import json
from dataclasses import replace

import pytest
from confide_enclave.api.choices import MAX_REQUEST_TOKENS, choice_seed
from confide_enclave.api.frames import _text_logprobs
from confide_enclave.engine import TokenLogprob
from confide_enclave.errors import Refusal
from confide_protocol.errors import CapacityExceeded, EngineError
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.api.asking import CHAT, PATH_CHAT, PATH_TEXT, ask, trees

pytestmark = pytest.mark.anyio

TEXT = {"model": "scripted", "prompt": "one two"}


SEEDS = [choice_seed(5, index) for index in range(4)]


class Seeded(ScriptedEngine):
    """Says a number of words that its seed decides, the more the likelier."""

    async def generate(self, request):
        number = SEEDS.index(request.sampling.seed)
        async for delta in super().generate(
            replace(request, sampling=replace(request.sampling, max_tokens=number + 1))
        ):
            better = delta.logprobs and tuple(replace(each, logprob=-1 / (number + 1)) for each in delta.logprobs)
            yield replace(delta, logprobs=better)


def test_seeds_are_pinned() -> None:
    """The first candidate has the request's own; the others' never change under a receipt."""
    assert choice_seed(-5, 0) == -5
    assert choice_seed(0, 1) == choice_seed(2**64, 1) == 0x1ED72194AAD3C94F
    assert len({choice_seed(seed, index) for seed in range(9) for index in range(9)}) == 81


async def test_n_answers_come_in_order_and_count_their_prompt_once() -> None:
    """Each from a seed of its own, under one cache salt."""
    engine = Seeded()
    answer, (body,) = await ask(engine, PATH_CHAT, {**CHAT, "n": 3, "seed": 5})
    parsed = ChatCompletion.model_validate(json.loads(body), strict=True)
    assert [choice.message.content for choice in parsed.choices] == ["Paris", "Paris is", "Paris is the"]
    assert (parsed.usage.prompt_tokens, parsed.usage.completion_tokens) == (2, 6)
    assert answer.record.messages == ["Paris", "Paris is", "Paris is the"]
    assert (answer.record.prompt_tokens, answer.record.completion_tokens) == (2, 6)
    assert len({request.cache_salt for request in engine.requests}) == 1
    assert (answer.record.sampling.seed, answer.record.sampling.choices) == (5, 3)


@pytest.mark.parametrize("flush_tokens", [1, 4, 100])
@pytest.mark.parametrize("path", [PATH_CHAT, PATH_TEXT])
async def test_a_stream_of_several_answers(path: str, flush_tokens: int) -> None:
    """Each has its parts and its end; usage is that of all."""
    base = CHAT if path == PATH_CHAT else TEXT
    body = {**base, "n": 3, "seed": 5, "stream": True, "stream_options": {"include_usage": True}}
    answer, events = await ask(Seeded(), path, body, flush_tokens=flush_tokens)
    *chunks, usage = trees(events)
    if path == PATH_CHAT:
        for chunk in [*chunks, usage]:
            ChatCompletionChunk.model_validate(chunk, strict=True)
    assert usage["usage"]["completion_tokens"] == 6
    ends = [choice["index"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert sorted(ends) == [0, 1, 2]
    assert answer.record.messages == ["Paris", "Paris is", "Paris is the"]


async def test_the_best_are_the_likeliest_by_the_token() -> None:
    """Best first; all that was drawn is counted; what was not asked for is not shown."""
    answer, (body,) = await ask(Seeded(), PATH_TEXT, {**TEXT, "n": 2, "best_of": 4, "seed": 5})
    tree = json.loads(body)
    assert [choice["text"] for choice in tree["choices"]] == ["Paris is the capital", "Paris is the"]
    assert [choice["index"] for choice in tree["choices"]] == [0, 1]
    assert [choice["logprobs"] for choice in tree["choices"]] == [None, None]
    assert tree["usage"]["completion_tokens"] == 10
    assert (answer.record.sampling.choices, answer.record.sampling.candidates) == (2, 4)
    assert answer.record.messages == ["Paris is the capital", "Paris is the"]


async def test_answers_share_a_budget() -> None:
    """Each gets its even part; more than that is refused where there are several."""
    engine = ScriptedEngine()
    await ask(engine, PATH_CHAT, {**CHAT, "n": 16, "max_tokens": MAX_REQUEST_TOKENS // 16})
    assert {request.sampling.max_tokens for request in engine.requests} == {MAX_REQUEST_TOKENS // 16}
    with pytest.raises(Refusal):
        await ask(engine, PATH_CHAT, {**CHAT, "n": 16, "max_tokens": MAX_REQUEST_TOKENS // 16 + 1})
    with pytest.raises(Refusal) as caught:
        await ask(engine, PATH_CHAT, {**CHAT, "n": 2, "max_tokens": MAX_REQUEST_TOKENS // 2 + 1})
    assert caught.value.param == "n"


@pytest.mark.parametrize("stream", [False, True])
async def test_one_that_fails_ends_all(stream: bool) -> None:
    """Nothing goes on behind an answer that ended."""
    engine = ScriptedEngine(fail_at=2, fault=EngineError(), step_s=0.001)
    with pytest.raises(EngineError):
        await ask(engine, PATH_CHAT, {**CHAT, "n": 3, "stream": stream})
    assert engine.running == 0
    full = ScriptedEngine(capacity=2, step_s=0.001)
    with pytest.raises(CapacityExceeded):
        await ask(full, PATH_CHAT, {**CHAT, "n": 3, "stream": stream})
    assert full.running == 0


async def test_leaving_a_stream_stops_every_answer() -> None:
    """Closing what is left cancels all of them."""
    from confide_enclave.api import Api, ApiRequest

    engine = ScriptedEngine(["a"] * 50, step_s=0.001)
    api = Api([engine], "fp", clock=lambda: 0.0, random=bytes)
    body = json.dumps({**CHAT, "n": 4, "stream": True}).encode()
    answer = await api.answer(ApiRequest("POST", PATH_CHAT, body, 1, bytes(32), ""))
    assert engine.running == 4
    await answer.rest.aclose()
    assert (engine.running, engine.cancelled) == (0, 4)


async def test_logprobs_in_bodies_and_streams() -> None:
    """Of every token, with its bytes; the same whole and in parts."""
    asked = {**CHAT, "logprobs": True, "top_logprobs": 1}
    _, (body,) = await ask(ScriptedEngine(), PATH_CHAT, asked)
    parsed = ChatCompletion.model_validate(json.loads(body), strict=True)
    content = parsed.choices[0].logprobs.content
    assert [each.token for each in content] == ["Paris", " is", " the", " capital", "."]
    assert content[0].bytes == list(b"Paris")
    assert (content[0].logprob, content[0].top_logprobs[0].token) == (-0.5, "Paris")
    _, events = await ask(ScriptedEngine(), PATH_CHAT, {**asked, "stream": True}, flush_tokens=2)
    chunks = [ChatCompletionChunk.model_validate(tree, strict=True).choices[0] for tree in trees(events)]
    streamed = [each.token for chunk in chunks if chunk.logprobs for each in chunk.logprobs.content]
    assert streamed == [each.token for each in content]


async def test_logprobs_of_text_completions() -> None:
    """The older form: parallel lists, offsets in the text."""
    for stream in (False, True):
        _, events = await ask(ScriptedEngine(), PATH_TEXT, {**TEXT, "logprobs": 1, "stream": stream})
        shown = [tree["choices"][0]["logprobs"] for tree in trees(events)][: 5 if stream else 1]
        assert [token for each in shown for token in each["tokens"]] == ["Paris", " is", " the", " capital", "."]
        assert [offset for each in shown for offset in each["text_offset"]] == [0, 5, 8, 12, 20]
        assert shown[0]["top_logprobs"][0] == {"Paris": -0.5}


def test_offsets_do_not_depend_on_how_a_stream_is_cut() -> None:
    """A character that is split over tokens counts the same, whether its parts came in one event or in several."""
    tokens = [TokenLogprob(token, -0.5, ()) for token in (b"a", b"\xc3", b"\xa9", b"bc", b"d")]
    whole = _text_logprobs(tokens, len(tokens))["text_offset"]
    for cut in range(1, len(tokens)):
        parts = [_text_logprobs(tokens[:cut], cut), _text_logprobs(tokens, len(tokens) - cut)]
        assert [offset for part in parts for offset in part["text_offset"]] == whole
    assert whole == [0, 1, 2, 3, 5]
