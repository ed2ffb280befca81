"""From response formats and tools to the one grammar that an answer must follow."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llguidance import regex_to_lark

from confide_enclave.api.reading import invalid
from confide_enclave.engine import Thinking
from confide_enclave.engine.grammar import complaint

MAX_SCHEMA_NODES: Final = 2_000
MAX_SCHEMA_DEPTH: Final = 32
MAX_PATTERN_CHARS: Final = 512
MAX_ALTERNATIVES: Final = 32
MAX_STRING_PATTERNS: Final = 16
# How a model's JSON is written: on one line, as json.dumps writes it. Free white space lets a model idle in it.
_STYLE: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_COMPOSE: Final = ("allOf", "anyOf", "oneOf")
_SILENT: Final = frozenset({"$defs", "definitions", "title", "description", "default", "examples", "deprecated"})
_TAIL: Final = r"""
TEXT: /(.|\n)*/
"""


def check_schema(schema: Mapping[str, Any], place: str) -> None:
    """Refuse what a compiler's own limits do not bound: its time grows with regexes that must all hold at once.

    Raises: Refusal naming `place`.
    """
    nodes = patterns = 0
    pending: list[tuple[Any, int]] = [(schema, 0)]
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if nodes > MAX_SCHEMA_NODES or depth > MAX_SCHEMA_DEPTH:
            raise invalid(place, "the schema is too large or too deep")
        if isinstance(node, dict):
            patterns += _check_node(node, place)
            if patterns > MAX_STRING_PATTERNS:
                raise invalid(place, "the schema has too many patterns")
            pending += [(child, depth + 1) for child in node.values()]
        elif isinstance(node, list):
            pending += [(child, depth + 1) for child in node]


def _check_node(node: Mapping[str, Any], place: str) -> int:
    """Check one object of a schema; return how many regexes it holds."""
    if "x-guidance" in node:
        raise invalid(place, "the schema holds an extension that is not supported")
    if "patternProperties" in node or "propertyNames" in node:
        raise invalid(place, "the schema names properties by pattern")
    for name in _COMPOSE:
        if isinstance(each := node.get(name), list) and len(each) > (1 if name == "allOf" else MAX_ALTERNATIVES):
            raise invalid(place, f"the schema has too many alternatives at {name}")
    joined = [name for name in (*_COMPOSE, "$ref") if isinstance(node.get(name), list | str)]
    if joined and node.keys() - _SILENT - {"discriminator", "type", "nullable", joined[0]}:
        raise invalid(place, f"the schema has {joined[0]} beside other demands")
    if not isinstance(pattern := node.get("pattern"), str):
        return 0
    check_pattern(pattern, place)
    if "format" in node:
        raise invalid(place, "the schema has a pattern and a format in one place")
    return 1


def check_pattern(pattern: str, place: str) -> None:
    """Raises: Refusal."""
    if len(pattern) > MAX_PATTERN_CHARS or not pattern.isprintable():
        raise invalid(place, f"a pattern has at most {MAX_PATTERN_CHARS} characters, all printable")


def json_rule(schema: Mapping[str, Any]) -> str:
    return "%json " + json.dumps({**schema, "x-guidance": _STYLE})


def regex_rule(pattern: str) -> str:
    """Return the rule; digits and word characters are ASCII's, as in a JSON Schema."""
    return f"/{regex_to_lark(pattern, 'dw')}/"


def make_grammar(
    answer: str,
    tools: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    must_call: bool,
    parallel: bool,
    thinks: Thinking,
) -> str:
    """Return the grammar's text, or none where anything goes.

    answer: the rule for an answer in words, empty for any; tools: name and schema of each that may be called.
    """
    if not answer and not tools:
        return ""
    lines = ["start: body" if thinks == "no" else "start: think body"]
    if thinks != "no":
        opening = '"<think>" ' if thinks == "tagged" else ""
        lines += [f"think: {opening}thought GAP", r"thought[lazy]: /(.|\n)*<\/think>/", r"GAP: /\n{0,2}/"]
    if not tools:
        lines.append("body: answer")
    elif must_call:
        lines.append('body: "<tool_call>" calls')
    elif answer:
        lines.append('body: answer | "<tool_call>" calls')
    else:
        # Lazy: the first tag decides, so that no call stands where it would be read as words.
        lines += ["body: TEXT | before calls", 'before[lazy]: TEXT "<tool_call>"']
    if answer:
        lines.append(f"answer: {answer}")
    if tools:
        lines.append(r'calls: call ("\n<tool_call>" call)*' if parallel else "calls: call")
        lines.append(r'call: "\n{\"name\": \"" named "}\n</tool_call>"')
        lines.append("named: " + " | ".join(f"named_{index}" for index in range(len(tools))))
        for index, (name, schema) in enumerate(tools):
            lines.append(rf'named_{index}: "{name}\", \"arguments\": " arguments_{index}')
            lines.append(f"arguments_{index}: {json_rule(schema)}")
    return "\n".join(lines) + _TAIL


async def check_grammar(grammar: str, place: str) -> None:
    """Compile once, to see whether it can be. Raises: Refusal naming `place`."""
    if grammar and (said := await asyncio.to_thread(complaint, grammar)):
        raise invalid(place, f"what it demands {said}")


def is_tool_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) is not None


def format_rule(kind: str, schema: Mapping[str, Any] | None, pattern: str | None, place: str) -> str:
    """Return the rule for an answer in words, empty for any. Raises: Refusal naming `place`."""
    if schema is not None:
        check_schema(schema, place)
        return json_rule(schema)
    if pattern is not None:
        check_pattern(pattern, place)
        return regex_rule(pattern)
    return json_rule({"type": "object"}) if kind == "json_object" else ""
