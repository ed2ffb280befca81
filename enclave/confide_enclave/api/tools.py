"""Tools: which may be called, and how a model without a place for them in its template is told of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from confide_enclave.api.constraints import check_schema
from confide_enclave.api.reading import invalid
from confide_enclave.engine import ChatMessage, ToolCall

NO_PARAMETERS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class ToolUse:
    """What may be called, and whether something must be, or several at once."""

    tools: tuple[tuple[str, Mapping[str, Any], str], ...] = field(default=(), repr=False)
    must_call: bool = False
    parallel: bool = True

    @property
    def described(self) -> list[dict[str, Any]]:
        return [
            {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}
            for name, schema, text in self.tools
        ]

    @property
    def schemas(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [(name, schema) for name, schema, _ in self.tools]


def choose_tools(
    tools: Sequence[tuple[str, Mapping[str, Any], str]],
    choice: Literal["none", "auto", "required"] | None,
    named: str | None,
    *,
    parallel: bool,
) -> ToolUse:
    """Apply the choice; tools: name, schema and description of each. Raises: Refusal naming the parameter."""
    names = [name for name, _, _ in tools]
    if len(set(names)) != len(names):
        raise invalid("tools", "two tools have one name")
    for index, (_, schema, _) in enumerate(tools):
        check_schema(schema, f"tools[{index}]")
    if named is not None:
        if named not in names:
            raise invalid("tool_choice", "no tool has that name")
        return ToolUse(tuple(tool for tool in tools if tool[0] == named), must_call=True, parallel=False)
    if choice == "required" and not tools:
        raise invalid("tool_choice", "there are no tools")
    if choice == "none" or not tools:
        return ToolUse()
    return ToolUse(tuple(tools), must_call=choice == "required", parallel=parallel)


def check_calls(messages: Sequence[ChatMessage]) -> None:
    """Refuse a tool's answer to a call that nobody made, and a call whose arguments are no object."""
    known: set[str] = set()
    for index, message in enumerate(messages):
        for call in message.tool_calls:
            if not _is_object(call.arguments):
                raise invalid(f"messages[{index}]", "a call's arguments are no JSON object")
            known.add(call.id)
        if message.role == "tool" and message.tool_call_id not in known:
            raise invalid(f"messages[{index}]", "it answers no call of an earlier message")


def tell_of_tools(messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]) -> list[ChatMessage]:
    """Write tools, calls and their results into plain messages, in the words of Qwen's and Hermes' templates."""
    told: list[ChatMessage] = []
    for message in messages:
        if message.role == "tool":
            text = f"<tool_response>\n{message.content}\n</tool_response>"
            if told and told[-1].role == "user" and told[-1].content.endswith("</tool_response>"):
                told[-1] = replace(told[-1], content=f"{told[-1].content}\n{text}")
            else:
                told.append(ChatMessage("user", text))
        elif message.tool_calls:
            parts = [message.content] if message.content else []
            parts += map(_written, message.tool_calls)
            told.append(ChatMessage("assistant", "\n".join(parts), reasoning=message.reasoning))
        else:
            told.append(message)
    if tools:
        system = told.pop(0).content + "\n\n" if told and told[0].role == "system" else ""
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        told.insert(0, ChatMessage("system", system + _ABOUT.format(listed)))
    return told


_ABOUT = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> \
XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def _written(call: ToolCall) -> str:
    name = json.dumps(call.name, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {call.arguments}}}\n</tool_call>'


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
