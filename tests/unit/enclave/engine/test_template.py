"""Chat templates: what models publish renders as it was meant; what reaches out, or grows, is refused."""

import json

import pytest
from confide_enclave.engine.template import MAX_CHARS, ChatTemplate
from confide_protocol.errors import ConfigError, EngineError
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Everything that the published templates of llama, qwen2 and qwen3 make use of.
RICH = """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
    {%- for tool in tools %}{{ "\\n" }}{{ tool | tojson }}{% endfor %}{{- "<|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(open=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and message.role == "user" and not message.content.startswith('<r>') %}
        {%- set ns.open = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}{% set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- message.role ~ '\\n' }}{% if loop.index0 > ns.last %}<think>{{ reasoning | trim }}</think>{% endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function %}{% set call = call.function %}{% endif %}
            {{- call.name }}{{ call.arguments if call.arguments is string else call.arguments | tojson }}
        {%- endfor %}
    {%- elif message['role'] == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}<user>{% endif %}
        {{- '<r>' + content + '</r>' }}
        {%- if loop.last or loop.nextitem.role != "tool" %}</user>{% endif %}
    {%- else %}
        {{- message.role | title }}{{ content.replace('a', 'bb') }}{{ ['x', content] | join(', ') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}assistant
    {%- if enable_thinking is defined and not enable_thinking %}!{% endif %}{% endif %}
"""


def published(source: str) -> Template:
    """Compile as the library does that models are published for."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    return environment.from_string(source)


OURS, THEIRS = ChatTemplate(RICH, "f"), published(RICH)


TEXTS = st.text(max_size=12) | st.sampled_from(["<think>a\n</think>\n\nb", "<r>x", ""])
CALLS = st.fixed_dictionaries(
    {"name": TEXTS, "arguments": TEXTS | st.dictionaries(TEXTS, st.integers(), max_size=2)}
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": TEXTS},
        optional={
            "reasoning_content": TEXTS,
            "tool_calls": st.lists(st.fixed_dictionaries({"function": CALLS}), max_size=2),
        },
    ),
    min_size=1,
    max_size=4,
)


@given(MESSAGES, st.lists(st.dictionaries(TEXTS, TEXTS, max_size=2), max_size=2), st.booleans())
def test_same_text_as_published(messages: list, tools: list, add: bool) -> None:
    """Counting steps changes no character."""
    names = {"messages": messages, "tools": tools, "add_generation_prompt": add}
    assert OURS.render(**names) == THEIRS.render(**names)


def test_what_it_looks_at() -> None:
    """Whether a template knows of tools and of thinking is read from it."""
    rich, plain = OURS, ChatTemplate("{{ messages }}", "f")
    assert (rich.takes_tools, rich.takes_thinking) == (True, True)
    assert (plain.takes_tools, plain.takes_thinking) == (False, False)
    assert ChatTemplate("{% if not tools is defined %}{% set tools = none %}{% endif %}", "f").takes_tools


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('CANARY') }}",
        "{{ messages.__class__ }}{{ messages.__class__.mro() }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ messages.append(1) }}",
        "{% include 'x' %}",
        "{{ lipsum() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ 'a'.format(1) }}",
        "{{ '{:999999999}'.format('a') }}",
        "{{ 'a'.center(999999999) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'a' * 999999999 }}",
        "{{ [1] * 999999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'ab'|indent(999999999) }}",
        "{{ messages|tojson(indent=999999999) }}",
        "{{ range(9999999)|list }}",
        "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
        "{% for i in range(1000) %}{% for j in range(1001) %}{% endfor %}{% endfor %}",
        "{% for a in c %}" * 4 + "{% endfor %}" * 4,
        "{% set n = namespace(x='aa') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(40) %}{% set n.x = n.x.replace('a', 'aa') %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(40) %}{% set n.x = n.x|replace('a', 'aa') %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(40) %}{% set n.x = n.x.join(c) %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(40) %}{% set n.x = c|join(n.x) %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(40) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
        "{% set n.x = y %}{% endfor %}",
        "{% for i in range(999) %}{{ big }}{% endfor %}",
    ],
)
def test_refused_while_it_runs(source: str) -> None:
    """No escape, no bomb: one EngineError, soon, that repeats nothing of the messages."""
    messages = [{"role": "user", "content": "CANARY"}]
    with pytest.raises(EngineError, match="refuses these messages") as caught:
        ChatTemplate(source, "f").render(messages=messages, c="x" * 100, big="y" * (MAX_CHARS // 100))
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ 'a'|center(9) }}",
        "{{ 1|random }}",
        "{% for x in y recursive %}{% endfor %}",
        "{{" + "(" * 500 + ")" * 500 + "}}",
        " " * (1 << 19),
    ],
)
def test_refused_when_read(source: str) -> None:
    """What cannot be run safely is found before any message comes."""
    with pytest.raises(ConfigError, match=r"^f: tokenizer.chat_template: "):
        ChatTemplate(source, "f")


def test_no_clock_and_no_chance() -> None:
    """The same messages always give the same text: what would say otherwise is not defined."""
    source = "{{ strftime_now is defined }} {{ range(3)|list }} {{ joiner is defined }} {{ 'x'.nope is defined }}"
    assert ChatTemplate(source, "f").render() == "False [0, 1, 2] False False"
