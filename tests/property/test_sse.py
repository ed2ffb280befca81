"""Events come out the same however the stream is cut."""

from itertools import pairwise

from confide_protocol.errors import TooLarge
from confide_protocol.sse import EventSplitter
from hypothesis import given
from hypothesis import strategies as st

STREAMS = st.one_of(st.binary(max_size=400), st.text("ad:\n ", max_size=200).map(str.encode))


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def events_of(pieces: list[bytes], limit: int = 1 << 20) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter(limit)
    return [event for piece in pieces for event in splitter.push(piece)], splitter.finish()


@given(stream=STREAMS, cuts=st.lists(st.integers(0, 500), max_size=12))
def test_any_cut_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    """How the stream was cut changes neither events nor leftover."""
    assert events_of(split(stream, cuts)) == events_of([stream])


@given(stream=STREAMS, cuts=st.lists(st.integers(0, 500), max_size=12), limit=st.integers(0, 40))
def test_any_cut_gives_the_same_refusal(stream: bytes, cuts: list[int], limit: int) -> None:
    """Whether an event is too large does not depend on the cuts."""

    def is_refused(pieces: list[bytes]) -> bool:
        try:
            events_of(pieces, limit)
        except TooLarge:
            return True
        return False

    assert is_refused(split(stream, cuts)) == is_refused([stream])


@given(stream=STREAMS)
def test_events_are_whole_and_without_comments(stream: bytes) -> None:
    """An event ends in its only blank line and has no line that begins with a colon."""
    for event in events_of([stream])[0]:
        assert event.endswith(b"\n\n")
        lines = event[:-2].split(b"\n")
        assert all(line and not line.startswith(b":") for line in lines)
