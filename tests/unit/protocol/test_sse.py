"""Server-sent events out of bytes."""

import pytest
from confide_protocol.errors import TooLarge
from confide_protocol.sse import EventSplitter


def test_events_come_whole_with_their_blank_line() -> None:
    """An event is given out when its blank line has come, byte for byte."""
    splitter = EventSplitter()
    assert splitter.push(b"data: a\ndata: b\n") == []
    assert splitter.push(b"\nevent: x\ndata: c\n\ndata") == [b"data: a\ndata: b\n\n", b"event: x\ndata: c\n\n"]
    assert splitter.finish() == b"data"


def test_comment_lines_are_removed_everywhere() -> None:
    """Filler before, between, after and within events leaves no trace."""
    splitter = EventSplitter()
    stream = b":\n: fill\ndata: a\n:   \n\n:\n\n:x\ndata: b\n\n:    \n"
    assert splitter.push(stream) == [b"data: a\n\n", b"data: b\n\n"]
    assert splitter.finish() == b""


def test_a_cut_comment_is_no_leftover() -> None:
    """A stream that ends within filler ends cleanly; one that ends within an event does not."""
    splitter = EventSplitter()
    splitter.push(b"data: a\n\n:  ")
    assert splitter.finish() == b""
    splitter = EventSplitter()
    splitter.push(b"data: a\n:  ")
    assert splitter.finish() == b"data: a\n"


def test_a_colon_inside_a_line_is_content() -> None:
    """Only a line that begins with a colon is a comment, however it was cut."""
    splitter = EventSplitter()
    assert splitter.push(b"data") == []
    assert splitter.push(b": x\n\n") == [b"data: x\n\n"]


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_an_endless_event_is_refused(piece: int) -> None:
    """An event over the limit is refused whatever the cuts; so is an endless comment line."""
    for stream in (b"data: aaaaaa\n" * 5 + b"\n", b"data: " + b"a" * 60, b":" * 60):
        splitter = EventSplitter(max_event_bytes=50)
        pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
        with pytest.raises(TooLarge):
            list(map(splitter.push, pieces))


def test_a_long_stream_of_short_events_is_no_matter() -> None:
    """The limit is that of one event, not of the stream."""
    splitter = EventSplitter(max_event_bytes=50)
    assert len(splitter.push(b"data: aaaaaa\n\n" * 100)) == 100
