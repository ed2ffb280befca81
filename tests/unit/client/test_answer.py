"""Reading the messages off OpenAI's objects."""

import json

import pytest
from confide.answer import DONE, AnswerText, is_events, is_json
from confide_protocol.errors import Malformed
from hypothesis import given
from hypothesis import strategies as st


def event(tree: str) -> bytes:
    return b"data: " + tree.encode() + b"\n\n"


def test_a_stream_adds_up_choice_by_choice() -> None:
    """Deltas are joined per index and listed in the order of the indices."""
    answer = AnswerText()
    for index, text in ((1, "b"), (0, "a"), (1, "B"), (0, "Ä")):
        answer.event(event(json.dumps({"choices": [{"index": index, "delta": {"content": text}}]})))
    answer.event(event('{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'))
    answer.event(event('{"choices":[],"usage":{}}'))
    answer.event(DONE)
    assert answer.messages == ("aÄ".encode(), b"bB")


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        (b'{"choices":[{"index":0,"message":{"content":"hi"}}]}', (b"hi",)),
        (b'{"choices":[{"index":0,"text":"hi"}]}', (b"hi",)),
        (b'{"choices":[{"index":0,"message":{"content":null}}]}', (b"",)),
        (b'{"error":{"message":"no"}}', ()),
        (b'{"object":"list","data":[]}', ()),
        (b"[]", ()),
    ],
)
def test_a_body_says_its_messages(body: bytes, messages: tuple[bytes, ...]) -> None:
    """Chat and text completions speak; errors and lists say nothing."""
    answer = AnswerText()
    answer.body(body)
    assert answer.messages == messages


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"choices":[{}]}', b'{"choices":["x"]}', b'"\\ud800"'])
def test_what_is_no_answer_is_malformed(body: bytes) -> None:
    """No JSON, choices without an index, text that is no Unicode: Malformed."""
    with pytest.raises(Malformed):
        AnswerText().body(body)


@pytest.mark.parametrize("event", [b"data:\n\n", b"data: \n\n", b"id: 1\ndata:\n\n", b"data:\ndata:\n\n"])
def test_an_event_whose_data_is_empty_is_malformed(event: bytes) -> None:
    """It has data, and they are no JSON; an event without any data says nothing."""
    with pytest.raises(Malformed):
        AnswerText().event(event)
    AnswerText().event(b": alive\n\n")


@given(st.binary(max_size=200))
def test_any_bytes_raise_malformed_alone(data: bytes) -> None:
    """No bytes make the reader raise anything but Malformed."""
    answer = AnswerText()
    for read in (answer.body, answer.event):
        try:
            read(data)
        except Malformed:
            continue
    assert isinstance(answer.messages, tuple)


def test_media_types_are_read_without_their_parameters() -> None:
    """Case and parameters of a content type do not count."""
    assert is_events("Text/Event-Stream; charset=utf-8")
    assert is_json("application/json;charset=utf-8")
    assert not is_json("application/jsonl")
