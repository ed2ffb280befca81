"""Structured output: a model that knows nothing says what schema, regex and tools allow; what costs is refused."""

import contextlib
import json
import re
import time

import pytest
from confide_enclave.api.constraints import check_schema, format_rule, make_grammar
from confide_enclave.engine.grammar import complaint
from confide_enclave.errors import Refusal
from confide_protocol.errors import EngineError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.enclave.engine.test_grammar import GRAMMARS, TOKENS, allowed, babble

WORDS = st.integers(-9, 99) | st.text('aé"\\ ', max_size=4)
LEAVES = (
    st.sampled_from([{"type": kind} for kind in ("integer", "number", "boolean", "null")])
    | st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 6))
    | st.lists(WORDS, min_size=1).map(lambda values: {"enum": values})
    | st.builds(
        lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)}, *[st.integers(-50, 50)] * 2
    )
    | st.just({"type": "string", "pattern": "^[a-c]{1,3}$"})
)


def objects(inner):
    properties = st.dictionaries(st.text("abc_é ", min_size=1, max_size=4), inner, max_size=3)
    return properties.map(
        lambda named: {
            "type": "object",
            "properties": named,
            "required": sorted(named),
            "additionalProperties": False,
        }
    )


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        objects(inner)
        | inner.map(lambda items: {"type": "array", "items": items, "maxItems": 3})
        | st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each})
    ),
    max_leaves=6,
)


def holds(schema, value) -> bool:
    """JSON Schema's meaning of what is drawn above."""
    if "anyOf" in schema:
        return any(holds(each, value) for each in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = {
        "integer": lambda: (
            type(value) is int and schema.get("minimum", value) <= value <= schema.get("maximum", value)
        ),
        "number": lambda: type(value) in (int, float),
        "boolean": lambda: type(value) is bool,
        "null": lambda: value is None,
        "string": lambda: (
            isinstance(value, str)
            and len(value) <= schema.get("maxLength", 99)
            and re.search(schema.get("pattern", ""), value)
        ),
        "array": lambda: (
            isinstance(value, list) and len(value) <= 3 and all(holds(schema["items"], v) for v in value)
        ),
        "object": lambda: (
            isinstance(value, dict)
            and value.keys() == schema["properties"].keys()
            and all(holds(schema["properties"][name], item) for name, item in value.items())
        ),
    }
    return bool(kinds[schema["type"]]())


def grammar(rule: str = "", tools=(), must_call=False, parallel=True, thinks="no") -> str:
    return make_grammar(rule, tools, must_call=must_call, parallel=parallel, thinks=thinks)


@settings(max_examples=60, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_any_answer_under_any_schema_is_valid(schema, seed: int) -> None:
    """Random schemas, a random model: whatever ends is JSON that the schema allows, on one line."""
    text = grammar(format_rule("json_schema", schema, None, "response_format"))
    assert complaint(text) is None
    said = babble(text, seed, limit=300)
    if said is not None:
        assert holds(schema, json.loads(said))
        assert b"\n" not in said


@pytest.mark.parametrize("seed", range(5))
def test_json_objects_and_patterns(seed: int) -> None:
    """The other two formats."""
    said = babble(grammar(format_rule("json_object", None, None, "x")), seed, limit=3000)
    assert said is None or isinstance(json.loads(said), dict)
    said = babble(grammar(format_rule("regex", None, r"(a/b|\d{2})+x", "x")), seed)
    assert said is None or re.fullmatch(rb"(a/b|[0-9]{2})+x", said)


CITY = {
    "type": "object",
    "properties": {"c": {"enum": ["R", "P"]}},
    "required": ["c"],
    "additionalProperties": False,
}
TOOLS = [("look", CITY), ("look_up", {"type": "object", "properties": {}, "additionalProperties": False})]
NAMED = r'look", "arguments": \{"c": "[RP]"\}|look_up", "arguments": \{\}'
ONE = rf'<tool_call>\n\{{"name": "({NAMED})\}}\n</tool_call>'


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("thinks", ["no", "tagged"])
def test_what_must_be_called_is_called(seed: int, thinks: str) -> None:
    """One call or several, each with its own schema; after its thoughts, where the model has any."""
    forced = grammar(tools=TOOLS, must_call=True, parallel=seed % 2 == 0)
    said = babble(forced, seed, limit=2000)
    assert said is not None
    assert re.fullmatch(f"{ONE}(\n{ONE})*" if seed % 2 == 0 else ONE, said.decode())
    assert complaint(grammar(tools=TOOLS, must_call=True, thinks=thinks)) is None


def walk(text: str, said: str) -> bool:
    """Whether the grammar lets all of it be said, and then end."""
    matcher = GRAMMARS.start(text)
    letters = {
        TOKENS.token_bytes(token): token for token in range(TOKENS.size) if len(TOKENS.token_bytes(token)) == 1
    }
    for byte in said.encode():
        if (token := letters[bytes([byte])]) not in allowed(matcher):
            return False
        matcher.advance(token)
    return matcher.done or bool(set(allowed(matcher)) & TOKENS.end_ids)


CALL = '<tool_call>\n{"name": "look", "arguments": {"c": "R"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("said", "parallel", "good"),
    [
        ("No call, 1 < 2 <b>.", True, True),
        ("Let me see.\n" + CALL, True, True),
        (CALL + "\n" + CALL, True, True),
        (CALL + "\n" + CALL, False, False),
        (CALL + " and more", True, False),
        ('<tool_call>\n{"name": "other"', True, False),
        ('Hm <tool_call>{"name"', True, False),
        (CALL.replace("R", "X"), True, False),
    ],
)
def test_what_may_be_called(said: str, parallel: bool, good: bool) -> None:
    """Words, or words and calls of the right form, and nothing after them."""
    assert walk(grammar(tools=TOOLS, parallel=parallel), said) is good


def test_thoughts_come_before_what_is_bound() -> None:
    """In either way of opening them; thoughts are free."""
    rule = format_rule("regex", None, "yes|no", "x")
    assert walk(grammar(rule, thinks="tagged"), "<think>\nHm <tool_call>\n</think>\n\nyes")
    assert walk(grammar(rule, thinks="opened"), "Hm</think>no")
    assert not walk(grammar(rule, thinks="tagged"), "yes")
    assert walk(grammar(rule, TOOLS), CALL)
    assert not walk(grammar(rule, TOOLS), "maybe")


WIDE = [{"type": "object", "properties": {f"k{j}": {"type": "integer"} for j in range(i)}} for i in range(31)]


def nested(depth: int) -> dict:
    tree: dict = {"type": "string"}
    for _ in range(depth):
        tree = {"type": "object", "properties": {"a": tree}}
    return tree


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"type": "string", "pattern": f".*x{{{n}}}.*"} for n in range(29)]},
        {"anyOf": [{"type": "string", "pattern": f".*{n}.*"} for n in range(17)]},
        {"anyOf": [{"type": "integer"}] * 33},
        {"$defs": {"a": {"$ref": "#/$defs/b", "pattern": "a"}}, "$ref": "#/$defs/a"},
        {"anyOf": [{"pattern": "a"}], "pattern": "b"},
        {"type": "string", "pattern": "a" * 513},
        {"type": "string", "pattern": "a\nstart: x"},
        {"type": "string", "pattern": "a.*", "format": "date"},
        {"type": "object", "patternProperties": {"a": {}}},
        {"type": "string", "x-guidance": {"lenient": True}},
        {"enum": ["x"] * 2001},
        nested(40),
    ],
)
def test_what_compilers_do_not_bound_is_refused_before_them(schema) -> None:
    """Regexes that must hold together above all: thirty of them would take hours."""
    with pytest.raises(Refusal) as caught:
        check_schema(schema, "response_format")
    assert (caught.value.param, caught.value.name) == ("response_format", "invalid_value")


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": WIDE},
        {"oneOf": WIDE},
        {"type": "object", "properties": {f"k{i}": {"enum": [f"v{j}" for j in range(10)]} for i in range(100)}},
        {"type": "array", "items": {"type": "string"}, "minItems": 100_000},
        {"type": "array", "items": {"type": "string", "pattern": "(a|b)*a(a|b){200}"}, "maxItems": 10_000},
        {"type": "string", "pattern": "((((a{0,30}){0,30}){0,30}){0,30}){0,30}"},
        {"type": "object", "properties": {f"k{i}": {"pattern": f"(.*{i}){{20}}"} for i in range(15)}},
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"type": "integer", "minimum": -(10**30), "maximum": 10**30, "multipleOf": 7919},
        {"type": "number", "multipleOf": 1e-9, "minimum": 0.1, "maximum": 1e9},
        {"type": "string", "minLength": 10**6, "maxLength": 10**7},
        {"enum": [f"{i:0500}" for i in range(1000)]},
    ],
)
def test_what_passes_is_compiled_soon(schema) -> None:
    """Accepted or refused, within a second, however it was meant."""
    started_s = time.monotonic()
    text = grammar(format_rule("json_schema", schema, None, "response_format"))
    if complaint(text) is None:
        with contextlib.suppress(EngineError):
            babble(text, 0, limit=20)
    assert time.monotonic() - started_s < 3
