"""A model's text, told apart: however it arrives, and whatever it is."""

from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.fuzz_api import TARGETS

TAGS = st.sampled_from(
    ["<think>", "</think>", "<tool_call>", "</tool_call>", '{"name": "f", "arguments": ', "{}", "}", "\n", "a", "<"]
)


@given(st.lists(TAGS | st.text("<>/thinktool_call \n", max_size=4), max_size=12).map("".join))
@example('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n<tool_call>')
@example(" <think></think>\n\n")
def test_the_cuts_of_a_text_change_nothing(text: str) -> None:
    """Words, reasoning and calls are the same."""
    TARGETS["model_text"](text.encode())


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda x: str(x).encode())
)
def test_any_schema_and_any_pattern_is_refused_or_compiled(data: bytes) -> None:
    """Nothing else is raised."""
    TARGETS["schema"](data)
    TARGETS["pattern"](data)
