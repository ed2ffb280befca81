"""Answers of EHBP hide their sizes by what readers pass over."""

import json

from confide_enclave.ehbp.filler import Filler
from confide_protocol.shape import BUCKETED, NONE
from confide_protocol.sse import EventSplitter
from hypothesis import example, given
from hypothesis import strategies as st

EVENTS = st.lists(st.integers(1, 1200).map(lambda size: b"data: " + b"x" * size + b"\n\n"), max_size=12)


@given(st.lists(EVENTS, min_size=1, max_size=12), st.integers(1, 8000))
@example([[b"data: " + b"x" * 503 + b"\n\n"]], 1)  # a gap of one byte
def test_a_filled_stream_has_one_size_of_frame_and_the_same_events(batches: list[list[bytes]], size: int) -> None:
    """Every frame is 512 bytes, their number a power of two, one a batch until the end; events are untouched."""
    filler = Filler(BUCKETED, streams=True)
    frames = [filler.flush(b"".join(batch)) for batch in batches]
    frames += filler.finish(b": confide " + b"r" * size + b"\n\n")
    assert {len(frame) for frame in frames} == {512}
    assert len(frames) & (len(frames) - 1) == 0
    assert len(frames) > len(batches)
    splitter = EventSplitter()
    assert [event for frame in frames for event in splitter.push(frame)] == [e for batch in batches for e in batch]
    assert splitter.finish() == b""
    whole = b"".join(frames)
    assert whole.count(b": confide " + b"r" * size + b"\n\n") == 1


@given(st.integers(0, 5000))
def test_a_filled_body_is_one_frame_of_a_power_of_two(size: int) -> None:
    """JSON reads the same; only log2 of its length shows."""
    body = json.dumps({"a": "x" * size}).encode()
    (frame,) = Filler(BUCKETED, streams=False).finish(body)
    assert len(frame) % 512 == 0
    blocks = len(frame) // 512
    assert blocks & (blocks - 1) == 0
    assert len(frame) < 2 * max(len(body), 512)
    assert json.loads(frame) == json.loads(body)


def test_a_shape_without_chunks_fills_nothing() -> None:
    """Bytes pass as they are."""
    stream = Filler(NONE, streams=True)
    assert [stream.flush(b"data: 1\n\n"), *stream.finish(b": confide\n\n")] == [b"data: 1\n\n", b": confide\n\n"]
    assert Filler(NONE, streams=False).finish(b'{"a":1}') == [b'{"a":1}']
