"""Request bodies: what is read, what is refused by name, what may pass because it asks for nothing."""

import json

import pytest
from confide_enclave.api.parameters import ChatParameters, CompletionParameters
from confide_enclave.api.reading import parse_parameters
from confide_enclave.errors import Refusal

MESSAGES = [{"role": "user", "content": "hi"}]
BASE = {"model": "m", "messages": MESSAGES}


def parse(changes: dict, model=ChatParameters, base=BASE):
    return parse_parameters(json.dumps({**base, **changes}).encode(), model)


def refusal(changes: dict, model=ChatParameters, base=BASE) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(changes, model, base)
    assert caught.value.status == 400
    return caught.value


def test_what_is_absent_is_left_open():
    """What suits the model is decided where the model is known."""
    read = parse({})
    assert (read.temperature, read.top_p, read.stop, read.seed, read.token_limit) == (None, None, (), None, None)
    assert not read.stream
    assert parse({}, CompletionParameters, {"model": "m", "prompt": "p"}).token_limit == 16


def test_null_means_the_default():
    """Clients send null for what their user did not set."""
    names = [
        "temperature",
        "top_p",
        "stop",
        "seed",
        "max_tokens",
        "stream",
        "stream_options",
        "tools",
        "n",
        "logprobs",
    ]
    assert parse(dict.fromkeys(names)) == parse({})


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
        {"n": 1, "store": False, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0},
        {"logit_bias": {}, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}},
        {"modalities": ["text"], "service_tier": "auto", "parallel_tool_calls": True, "verbosity": "medium"},
        {"messages": [{**MESSAGES[0], "name": "user_1"}]},
        {"tools": [{"type": "function", "function": {"name": "f", "description": None, "parameters": None}}]},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"temperature": 0, "top_p": 1, "stop": "x", "seed": -1, "max_tokens": 5},
        {"max_completion_tokens": 5, "stop": ["a", "b", "c", "d"]},
        {"n": 3, "best_of": 5, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "logit_bias": {"7": -100}},
        {"n": 3, "stream": True, "logprobs": True, "top_logprobs": 20, "reasoning_effort": "none"},
        {"frequency_penalty": -2, "presence_penalty": 2.0, "response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}},
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}], "tool_choice": "required"},
    ],
)
def test_harmless_and_supported_parameters_pass(changes):
    """Nothing here asks for what is not done."""
    parse(changes)


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_value"),
        ({"n": 3, "best_of": 2}, "best_of", "invalid_value"),
        ({"stream": True, "best_of": 2}, "best_of", "invalid_value"),
        ({"store": True}, "store", "unsupported_value"),
        ({"logprobs": 1}, "logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0]", "invalid_value"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "invalid_value"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0]", "invalid_value"),
        ({"tool_choice": "always"}, "tool_choice", "invalid_value"),
        ({"functions": [{}]}, "functions", "unsupported_value"),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "invalid_value"),
        ({"response_format": {"type": "text", "pattern": "a"}}, "response_format", "invalid_value"),
        ({"presence_penalty": 2.5}, "presence_penalty", "invalid_value"),
        ({"frequency_penalty": -2.5}, "frequency_penalty", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"min_p": 1.5}, "min_p", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"five": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {str(n): 1 for n in range(301)}}, "logit_bias", "invalid_value"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "invalid_value"),
        ({"verbosity": "low"}, "verbosity", "unsupported_value"),
        ({"previous_response_id": "x"}, "previous_response_id", "unknown_parameter"),
        ({"service_tier": "priority"}, "service_tier", "unsupported_value"),
        ({"top_a": 5}, "top_a", "unknown_parameter"),
        ({"Secret Prompt": 5}, None, "unknown_parameter"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_value"),
        ({"temperature": True}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_value"),
        ({"seed": 1 << 63}, "seed", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", None),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stop": [""]}, "stop[0]", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "unsupported_parameter"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_value"),
        ({"messages": [5]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}, "messages[0][0]", "invalid_value"),
        ({"messages": [{"role": "assistant", "tool_calls": "x"}]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0]", "invalid_value"),
        ({"messages": [*MESSAGES, {**MESSAGES[0], "cache_control": {}}]}, "messages[1]", "unsupported_parameter"),
        ({"messages": [{**MESSAGES[0], "name": "x" * 65}]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]", "unsupported_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0]",
            "unsupported_value",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "x" * 99}]}]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": []}]}]}, "messages[0]", "invalid_value"),
        ({"model": 5}, "model", "invalid_value"),
    ],
)
def test_what_is_not_done_is_refused_by_name(changes, param, code):
    """Never silently ignored; the parameter is named, its value is not."""
    fault = refusal(changes)
    assert (fault.param, fault.name) == (param, code)


def test_an_image_is_refused_in_words():
    """Which part is not taken, and why; nothing of what it holds."""
    image = {"type": "image_url", "image_url": {"url": "https://secret.test/x.png"}}
    fault = refusal({"messages": [*MESSAGES, {"role": "user", "content": [{"type": "text", "text": "a"}, image]}]})
    assert str(fault) == (
        "Unsupported content in 'messages[1]': parts of the type 'image_url' are not supported: the models here "
        "take text alone, and nothing is fetched."
    )


def test_missing_parameters_are_named():
    """As OpenAI does."""
    fault = refusal({}, base={"model": "m"})
    assert (fault.param, fault.name) == ("messages", "missing_required_parameter")


def test_a_message_may_come_back_as_it_was_given():
    """Clients put an answer's own message, nulls and empty lists included, into the next request."""
    given = {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "tool_calls": None,
    }
    read = parse({"messages": [*MESSAGES, given, *MESSAGES]})
    assert [m.to_engine().role for m in read.messages] == ["user", "assistant", "user"]


def test_text_parts_are_joined_and_developer_is_system():
    """The forms of content that mean plain text."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (message,) = parse({"messages": [{"role": "developer", "content": parts}]}).messages
    assert (message.to_engine().role, message.to_engine().content) == ("system", "ab")


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], [[1]], 5, {}])
def test_a_completion_takes_exactly_one_text(prompt):
    """Token lists and several prompts are refused."""
    assert refusal({"prompt": prompt}, CompletionParameters, {"model": "m"}).param == "prompt"


def test_a_list_of_one_prompt_is_that_prompt():
    """Some clients always send a list."""
    assert parse({"prompt": ["a"]}, CompletionParameters, {"model": "m"}).prompt == "a"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 100_000),
        *(b'{"a": NaN}', b'{"a": 1e999}', b'{"a": [-1e999]}', b'{"a": "\\ud800"}'),
    ],
)
def test_what_is_no_json_object_is_refused(body):
    """Text that is no object, not UTF-8, not strict JSON, or too deep."""
    with pytest.raises(Refusal) as caught:
        parse_parameters(body, ChatParameters)
    assert caught.value.name == "invalid_json"
