"""Tools: who is told of them and how, what comes back, in bodies and in streams."""

import json

import pytest
from confide_enclave.errors import Refusal
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.api.asking import CHAT, PATH_CHAT, ask, trees

pytestmark = pytest.mark.anyio

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": CITY}}
WITH = {**CHAT, "tools": [TOOL]}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
WORDS = ["Let me", " see.", *CALL]


@pytest.mark.parametrize("words", [WORDS, ["".join(WORDS)]])
async def test_a_call_is_told_from_words(words: list[str]) -> None:
    """However the text arrives; the message that is signed holds both."""
    answer, (body,) = await ask(ScriptedEngine(words), PATH_CHAT, {**WITH, "max_tokens": 500})
    parsed = ChatCompletion.model_validate(json.loads(body), strict=True)
    (choice,) = parsed.choices
    (call,) = choice.message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')
    assert (choice.message.content, choice.finish_reason) == ("Let me see.", "tool_calls")
    said = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    assert answer.record.messages == ["Let me see." + said]


@pytest.mark.parametrize("flush_tokens", [1, 8, 500])
async def test_calls_are_streamed(flush_tokens: int) -> None:
    """The pieces of a stream add up to what a body says."""
    words = [*CALL, "\n", *CALL]
    body = {**WITH, "max_tokens": 500, "stream": True}
    answer, events = await ask(ScriptedEngine(words), PATH_CHAT, body, flush_tokens=flush_tokens)
    chunks = [ChatCompletionChunk.model_validate(tree, strict=True) for tree in trees(events)]
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [call.index for call in calls] == [0, 1]
    assert len({call.id for call in calls}) == 2
    assert {call.function.arguments for call in calls if call.function} == {'{"city": "Paris"}'}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert answer.record.messages[0].count("<tool_call>") == 2


async def test_a_call_that_is_cut_short_shows_its_beginning() -> None:
    """As OpenAI does; the reason is the length."""
    _, (body,) = await ask(ScriptedEngine(list(CALL)), PATH_CHAT, {**WITH, "max_tokens": len(CALL) - 20})
    (choice,) = json.loads(body)["choices"]
    assert choice["finish_reason"] == "length"
    assert '{"city": "Paris"}'.startswith(choice["message"]["tool_calls"][0]["function"]["arguments"])


async def test_a_model_without_a_place_for_tools_is_told_in_words() -> None:
    """Tools, calls and results become plain messages, as Qwen's template writes them."""
    engine = ScriptedEngine()
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    await ask(engine, PATH_CHAT, {**WITH, "messages": messages})
    system, _, assistant, result = engine.requests[0].prompt
    assert system.content.startswith("Be brief.\n\n# Tools")
    assert json.dumps(TOOL) in system.content
    assert assistant.content == '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert (result.role, result.content) == ("user", "<tool_response>\nrain\n</tool_response>")


async def test_no_tool_may_be_called_with_none() -> None:
    """Neither told of nor listened for."""
    engine = ScriptedEngine([CALL])
    _, (body,) = await ask(engine, PATH_CHAT, {**WITH, "tool_choice": "none"})
    assert json.loads(body)["choices"][0]["message"]["content"] == CALL
    assert engine.requests[0].sampling.grammar == ""
    assert "# Tools" not in engine.requests[0].prompt[0].content


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, "messages[0]"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "["}}
                        ],
                    }
                ]
            },
            "messages[0]",
        ),
        ({"tools": [{**TOOL, "function": {"name": "f", "parameters": {"not": {}}}}]}, "tools"),
        ({"tools": [{**TOOL, "function": {"name": "f", "parameters": {"x-guidance": {}}}}]}, "tools[0]"),
    ],
)
async def test_what_makes_no_sense_is_refused(changes: dict, param: str) -> None:
    """Before the engine is asked, naming the parameter."""
    engine = ScriptedEngine()
    with pytest.raises(Refusal) as caught:
        await ask(engine, PATH_CHAT, {**WITH, **changes})
    assert (caught.value.param, caught.value.name) == (param, "invalid_value")
    assert not engine.requests


@pytest.mark.parametrize(
    ("thinks", "words"), [("tagged", ["<think>", "why", "</think>", "\n\n", "Yes"]), ("opened", ["why</think>Yes"])]
)
async def test_reasoning_is_told_from_the_answer(thinks: str, words: list[str]) -> None:
    """In a field of its own; the message that is signed holds it."""
    answer, (body,) = await ask(ScriptedEngine(words, thinks=thinks), PATH_CHAT, CHAT)
    message = json.loads(body)["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Yes", "why")
    assert answer.record.messages == ["<think>why</think>Yes"]
    answer, events = await ask(ScriptedEngine(words, thinks=thinks), PATH_CHAT, {**CHAT, "stream": True})
    deltas = [tree["choices"][0]["delta"] for tree in trees(events)]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "why"
    assert answer.record.messages == ["<think>why</think>Yes"]


async def test_a_model_that_does_not_reason_is_not_asked_to() -> None:
    """An effort that cannot be made is refused; none is none."""
    await ask(ScriptedEngine(), PATH_CHAT, {**CHAT, "reasoning_effort": "none"})
    with pytest.raises(Refusal) as caught:
        await ask(ScriptedEngine(), PATH_CHAT, {**CHAT, "reasoning_effort": "medium"})
    assert caught.value.name == "unsupported_parameter"
