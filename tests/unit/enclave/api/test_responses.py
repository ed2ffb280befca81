"""The Responses API: stateless, strict, and parsed by OpenAI's own types."""

import json

import pytest
from confide_enclave.api.reading import parse_parameters
from confide_enclave.api.response_parameters import ResponseParameters
from confide_enclave.errors import Refusal
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.api.asking import PATH_RESPONSES, ask, trees
from tests.unit.enclave.api.test_tools import CALL, CITY

pytestmark = pytest.mark.anyio

BASE = {"model": "scripted", "input": "one two"}
TOOL = {"type": "function", "name": "weather", "parameters": CITY}
EVENT = TypeAdapter(ResponseStreamEvent)


async def test_a_response_has_every_key() -> None:
    """Text, usage, and that nothing is stored."""
    answer, (body,) = await ask(
        ScriptedEngine(), PATH_RESPONSES, {**BASE, "instructions": "Be brief.", "store": False}
    )
    tree = json.loads(body)
    parsed = Response.model_validate(tree, strict=True)
    assert (parsed.output_text, parsed.status) == ("Paris is the capital.", "completed")
    assert parsed.usage.total_tokens == parsed.usage.input_tokens + 5
    assert (tree["store"], tree["instructions"], tree["previous_response_id"]) == (False, "Be brief.", None)
    assert answer.record.messages == ["Paris is the capital."]


async def test_nothing_of_a_response_is_missing() -> None:
    """Every key that Open Responses 2026-04-24 demands; of what is not done, null."""
    asked = {
        **BASE,
        "tools": [TOOL],
        "tool_choice": "none",
        "user": "u",
        "prompt_cache_key": "k",
        "temperature": 0.5,
    }
    asked["text"] = {"format": {"type": "json_schema", "name": "x", "schema": {}}}
    _, (body,) = await ask(ScriptedEngine(), PATH_RESPONSES, asked)
    tree = json.loads(body)
    for name, value in {
        "background": False, "completed_at": 1_760_000_000, "error": None, "frequency_penalty": 0.0,
        "incomplete_details": None, "instructions": None, "max_output_tokens": None, "max_tool_calls": None,
        "metadata": {}, "parallel_tool_calls": True, "presence_penalty": 0.0, "previous_response_id": None,
        "prompt_cache_key": None, "reasoning": {"effort": None, "summary": None}, "safety_identifier": None,
        "service_tier": "default", "store": False, "temperature": 0.5, "tool_choice": "none", "top_logprobs": 0,
        "top_p": 1.0, "truncation": "disabled",
    }.items():  # fmt: skip
        assert tree[name] == value, name
    assert tree["tools"] == [{**TOOL, "description": None, "strict": None}]
    assert tree["text"]["format"]["description"] is None
    assert [item["id"][:4] for item in tree["output"]] == ["msg_"]


async def test_penalties_reach_the_engine() -> None:
    """Open Responses has them; OpenAI's own API has not."""
    engine = ScriptedEngine()
    await ask(engine, PATH_RESPONSES, {**BASE, "presence_penalty": 0.5, "frequency_penalty": -0.5})
    sampling = engine.requests[0].sampling
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, -0.5)


async def test_reasoning_comes_back_with_its_turn() -> None:
    """As it was given, before the words or the call that it led to; null members say nothing."""
    engine = ScriptedEngine(["ok"], thinks="tagged")
    why = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": None}
    items = [
        {"role": "user", "content": "Rome?"},
        {**why, "content": [{"type": "reasoning_text", "text": "why"}]},
        {"role": "assistant", "content": "See:", "phase": "commentary"},
        {**why, "content": [{"type": "reasoning_text", "text": " not"}]},
        {"type": "function_call", "id": None, "call_id": "c", "name": "w", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "rain"},
    ]
    await ask(engine, PATH_RESPONSES, {**BASE, "input": items, "include": ["reasoning.encrypted_content"]})
    told = [(message.role, message.content, message.reasoning) for message in engine.requests[0].prompt]
    call = 'See:\n<tool_call>\n{"name": "w", "arguments": {}}\n</tool_call>'
    result = "<tool_response>\nrain\n</tool_response>"
    assert told == [("user", "Rome?", ""), ("assistant", call, "why not"), ("user", result, "")]


@pytest.mark.parametrize("flush_tokens", [1, 8])
async def test_a_stream_adds_up(flush_tokens: int) -> None:
    """In OpenAI's order of events, numbered; the last one says what a body says."""
    asked = {**BASE, "stream": True, "include": ["message.output_text.logprobs"], "top_logprobs": 1}
    answer, events = await ask(ScriptedEngine(), PATH_RESPONSES, asked, flush_tokens=flush_tokens)
    parsed = [EVENT.validate_python(tree) for tree in trees(events)]
    assert [each.sequence_number for each in parsed] == list(range(len(parsed)))
    assert all(e.startswith(f"event: {each.type}\ndata: ".encode()) for e, each in zip(events, parsed, strict=True))
    kinds = list(dict.fromkeys(each.type for each in parsed))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = [each for each in parsed if each.type == "response.output_text.delta"]
    assert "".join(each.delta for each in deltas) == parsed[-1].response.output_text == "Paris is the capital."
    assert [p.token for each in deltas for p in each.logprobs] == ["Paris", " is", " the", " capital", "."]
    assert answer.record.messages == ["Paris is the capital."]


async def test_calls_and_reasoning_are_items() -> None:
    """One item each, in a body and in a stream alike."""
    words = ["<think>why</think>", "See:", CALL, "\n" + CALL]
    asked = {**BASE, "tools": [TOOL], "max_output_tokens": 400}
    _, (body,) = await ask(ScriptedEngine(words, thinks="tagged"), PATH_RESPONSES, asked)
    parsed = Response.model_validate(json.loads(body), strict=True)
    kinds = ["reasoning", "message", "function_call", "function_call"]
    assert [item.type for item in parsed.output] == kinds
    assert parsed.output[2].arguments == '{"city": "Paris"}'
    answer, events = await ask(ScriptedEngine(words, thinks="tagged"), PATH_RESPONSES, {**asked, "stream": True})
    streamed = [EVENT.validate_python(tree) for tree in trees(events)]
    done = [each.item for each in streamed if each.type == "response.output_item.done"]
    assert [item.type for item in done] == kinds
    assert [item.model_dump() for item in done] == [item.model_dump() for item in streamed[-1].response.output]
    call = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    assert answer.record.messages == ["<think>why</think>See:" + call * 2]


async def test_a_response_that_is_cut_says_so() -> None:
    """Status, reason, and the name of the last event."""
    _, events = await ask(ScriptedEngine(), PATH_RESPONSES, {**BASE, "max_output_tokens": 2, "stream": True})
    *_, last = trees(events)
    assert (last["type"], last["response"]["incomplete_details"]) == (
        "response.incomplete",
        {"reason": "max_output_tokens"},
    )
    assert last["response"]["output"][0]["status"] == "incomplete"


THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "why"}]}
ASKED = {"role": "user", "content": "Rome?"}
CALLED = {"type": "function_call", "call_id": "c", "name": "w", "arguments": "{}"}


@pytest.mark.parametrize(
    ("items", "turns"),
    [
        ([ASKED, THOUGHT], [("user", ""), ("assistant", "why")]),
        (
            [ASKED, THOUGHT, ASKED, {"role": "assistant", "content": "a"}],
            [("user", ""), ("assistant", "why"), ("user", ""), ("assistant", "")],
        ),
        (
            [ASKED, CALLED, THOUGHT, {"type": "function_call_output", "call_id": "c", "output": "r"}],
            [("user", ""), ("assistant", ""), ("assistant", "why"), ("tool", "")],
        ),
    ],
)
def test_reasoning_that_led_to_nothing_stays_where_it_was(items: list, turns: list) -> None:
    """An answer that was cut while it thought is a turn of its own: nothing of it joins a later one or is lost."""
    body = json.dumps({**BASE, "input": items}).encode()
    told = [(turn.role, turn.reasoning) for turn in parse_parameters(body, ResponseParameters).messages()]
    assert told == turns


async def test_a_conversation_is_given_as_a_whole() -> None:
    """Items of earlier answers may come back as they were given."""
    engine = ScriptedEngine()
    part = {"type": "output_text", "text": "See:", "annotations": [], "logprobs": []}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Rome?"}]},
        {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]},
        {"id": "f", "type": "function_call", "status": "completed", "call_id": "c", "name": "w", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "rain"},
    ]
    await ask(engine, PATH_RESPONSES, {**BASE, "input": items, "instructions": "Be brief."})
    told = [(message.role, message.content) for message in engine.requests[0].prompt]
    call = 'See:\n<tool_call>\n{"name": "w", "arguments": {}}\n</tool_call>'
    result = "<tool_response>\nrain\n</tool_response>"
    assert told == [("system", "Be brief."), ("user", "Rome?"), ("assistant", call), ("user", result)]


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"store": "no"}, "store", "unsupported_value"),
        ({"background": True}, "background", "unsupported_value"),
        ({"truncation": "auto"}, "truncation", "unsupported_value"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": "c"}, "conversation", "unsupported_parameter"),
        ({"prompt": {}}, "prompt", "unsupported_parameter"),
        ({"max_tool_calls": 1}, "max_tool_calls", "unsupported_parameter"),
        ({"n": 2}, "n", "unknown_parameter"),
        ({"seed": 2.5}, "seed", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]}]}, "input", None),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "e"}]}, "input", None),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input", None),
        ({"input": [ASKED | {"output": "r"}]}, "input[0]", "invalid_value"),
        ({"input": [ASKED, CALLED | {"content": "c"}]}, "input[1]", "invalid_value"),
        ({"input": [ASKED, CALLED | {"role": "user"}]}, "input[1]", "invalid_value"),
        ({"input": [ASKED, THOUGHT | {"arguments": "{}"}]}, "input[1]", "invalid_value"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "r", "name": "w"}]},
            "input[0]",
            "invalid_value",
        ),
        ({"metadata": {"a": "v" * 513}}, "metadata", "invalid_value"),
        ({"metadata": {"k" * 65: "v"}}, "metadata", "invalid_value"),
        ({"metadata": {f"k{number}": "v" for number in range(17)}}, "metadata", "invalid_value"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input", "unsupported_value"),
        ({"tools": [{"type": "web_search"}]}, "tools", None),
        ({"include": ["file_search_call.results"]}, "include[0]", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"text": {"verbosity": "low"}}, "text", "invalid_value"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}},
            "text",
            "invalid_value",
        ),
        ({"reasoning": {"effort": "medium"}}, "reasoning", "unsupported_parameter"),
        ({"reasoning": {"summary": "auto"}}, "reasoning", "unsupported_parameter"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
    ],
)
async def test_what_is_not_done_is_refused_by_name(changes: dict, param: str, code: str | None) -> None:
    """State above all."""
    engine = ScriptedEngine()
    with pytest.raises(Refusal) as caught:
        await ask(engine, PATH_RESPONSES, {**BASE, **changes})
    assert (caught.value.param or "").startswith(param)
    assert code is None or caught.value.name == code
    assert not engine.requests


@pytest.mark.parametrize(
    ("more", "flush_tokens", "guesses"),
    [({}, 8, True), ({"speculate": False}, 1, False), ({"stream": True}, 8, False), ({"stream": True}, 1, True)],
)
async def test_guessing_ahead_can_be_turned_off(more: dict, flush_tokens: int, guesses: bool) -> None:
    """As in a chat: by the request, and by a shape that hides sizes; the object does not repeat it."""
    engine = ScriptedEngine()
    _, events = await ask(engine, PATH_RESPONSES, {**BASE, **more}, flush_tokens=flush_tokens)
    assert engine.requests[0].speculate is guesses
    assert b"speculate" not in b"".join(events)
