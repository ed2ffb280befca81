"""The Responses API: stateless, strict, and parsed by OpenAI's own types."""

import json

import pytest
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
        ({"store": True}, "store", "unsupported_value"),
        ({"background": True}, "background", "unsupported_value"),
        ({"truncation": "auto"}, "truncation", "unsupported_value"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": "c"}, "conversation", "unsupported_parameter"),
        ({"prompt": {}}, "prompt", "unsupported_parameter"),
        ({"max_tool_calls": 1}, "max_tool_calls", "unsupported_parameter"),
        ({"n": 2}, "n", "unknown_parameter"),
        ({"seed": 2.5}, "seed", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": [{"type": "reasoning", "id": "r", "summary": []}]}, "input", None),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input", "invalid_value"),
        ({"tools": [{"type": "web_search"}]}, "tools", None),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"text": {"verbosity": "low"}}, "text", "unsupported_parameter"),
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
