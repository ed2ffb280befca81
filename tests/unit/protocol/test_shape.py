"""Shapes of requests and responses."""

import pytest
from confide_protocol import bhttp, labels
from confide_protocol.errors import LocalStateError, Malformed, TooLarge
from confide_protocol.shape import BUCKETED, NONE, ResponseShaper, Shape, shape_named
from confide_protocol.sse import EventSplitter

STREAM = bhttp.ResponseHead(200, (("content-type", "text/event-stream"),))
PLAIN = bhttp.ResponseHead(200, (("content-type", "application/json"),))
RECEIPT = (("confide-receipt", "A" * 5800),)
EVENT = b'data: {"choices":[]}\n\n'
LENGTH = BUCKETED.chunk_bytes


def read(plaintexts: list[bytes]) -> tuple[bytes, bhttp.Fields]:
    """Decode a response's plaintexts into its content and trailers."""
    decoder = bhttp.Decoder()
    events = [event for plaintext in plaintexts for event in decoder.push(plaintext)] + decoder.finish()
    content = b"".join(event.data for event in events if isinstance(event, bhttp.Content))
    trailers = [event.fields for event in events if isinstance(event, bhttp.Trailers)]
    return content, trailers[0] if trailers else ()


def test_shapes_have_the_names_of_the_wire() -> None:
    """Both shapes are found by their names."""
    assert shape_named(labels.SHAPE_NONE) is NONE
    assert shape_named(labels.SHAPE_BUCKETED) is BUCKETED


@pytest.mark.parametrize("name", ["", "constant", "None", "bucketed "])
def test_an_unknown_shape_is_refused(name: str) -> None:
    """No unknown name is lowered to another shape."""
    with pytest.raises(Malformed):
        shape_named(name)


@pytest.mark.parametrize(("size", "bucket"), [(0, 1024), (1024, 1024), (1025, 2048), (1 << 24, 1 << 24)])
def test_requests_are_padded_to_doubling_buckets(size: int, bucket: int) -> None:
    """A request grows to the next bucket by zero bytes at its end."""
    padded = BUCKETED.pad_request(b"\1" * size)
    assert (len(padded), padded.rstrip(b"\0")) == (bucket, b"\1" * size)


def test_a_request_over_the_greatest_bucket_is_refused() -> None:
    """A request that fits no bucket is an error, not an unpadded request."""
    with pytest.raises(TooLarge):
        BUCKETED.pad_request(bytes((1 << 24) + 1))


def test_shape_none_pads_nothing() -> None:
    """Without a shape, requests and token counts stay as they are."""
    assert NONE.pad_request(b"abc") == b"abc"
    assert NONE.bucket_tokens(13) == 13


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_token_counts_are_bucketed(count: int, shown: int) -> None:
    """A bucketed shape shows powers of two."""
    assert BUCKETED.bucket_tokens(count) == shown


def test_none_streams_what_is_pending() -> None:
    """The head leaves with the first flush, each event with its own, nothing when nothing is pending."""
    shaper = ResponseShaper(NONE, STREAM)
    first = shaper.flush()
    assert first == [bhttp.encode_head(STREAM)]
    assert shaper.flush() == []
    shaper.content(EVENT)
    second = shaper.flush()
    assert second == [bhttp.encode_content(EVENT)]
    last = shaper.finish(RECEIPT)
    assert len(last) == 1
    assert read(first + second + last) == (EVENT, RECEIPT)


def test_bucketed_gives_one_plaintext_for_each_flush() -> None:
    """Nothing, little or much pending: a flush gives one plaintext of one length."""
    shaper = ResponseShaper(BUCKETED, STREAM)
    plaintexts = []
    for count in (0, 1, 200, 0, 3):
        shaper.content(EVENT * count)
        flushed = shaper.flush()
        assert [len(plaintext) for plaintext in flushed] == [LENGTH]
        plaintexts += flushed
    plaintexts += shaper.finish(RECEIPT)
    content, trailers = read(plaintexts)
    assert EventSplitter().push(content) == [EVENT] * 204
    assert trailers == RECEIPT


def test_pending_events_leave_whole_before_filler() -> None:
    """A flush with room sends everything pending: filler delays no event."""
    shaper = ResponseShaper(BUCKETED, STREAM)
    shaper.content(EVENT * 3)
    decoder, splitter = bhttp.Decoder(), EventSplitter()
    content = b"".join(e.data for e in decoder.push(shaper.flush()[0]) if isinstance(e, bhttp.Content))
    assert splitter.push(content) == [EVENT] * 3
    assert content.startswith(EVENT * 3 + b":  ")


def test_bucketed_plain_bodies_wait_for_the_end() -> None:
    """A plain body shows no flush; it ends in a power of two of full plaintexts."""
    shaper = ResponseShaper(BUCKETED, PLAIN)
    shaper.content(b"{}")
    assert shaper.flush() == []
    plaintexts = shaper.finish(RECEIPT)
    assert [len(plaintext) for plaintext in plaintexts] == [LENGTH] * 16
    assert read(plaintexts) == (b"{}", RECEIPT)


def test_answer_error_and_abort_look_alike() -> None:
    """A short answer, a sealed error and an abort without content have the same sizes."""
    error = bhttp.ResponseHead(400, (("content-type", "application/json"),))
    sizes = set()
    for head, body in ((PLAIN, b'{"a":1}'), (error, b'{"error":{"message":"no"}}'), (STREAM, b"")):
        shaper = ResponseShaper(BUCKETED, head)
        shaper.content(body)
        sizes.add(tuple(len(plaintext) for plaintext in shaper.finish(RECEIPT)))
    assert sizes == {(LENGTH,) * 16}


@pytest.mark.parametrize("room", range(1, 140))
def test_every_room_is_filled(room: int) -> None:
    """Whatever room the head leaves, the first plaintext is full and nothing is lost."""
    used = len(bhttp.encode_head(STREAM))
    shape = Shape("test", flush_tokens=1, request_buckets=(), chunk_bytes=used + room)
    shaper = ResponseShaper(shape, STREAM)
    shaper.content(EVENT)
    plaintexts = shaper.flush() + shaper.flush() + shaper.finish()
    assert {len(plaintext) for plaintext in plaintexts} == {used + room}
    assert EventSplitter().push(read(plaintexts)[0]) == [EVENT]


def test_a_cut_event_is_the_callers_fault() -> None:
    """Filler may follow any content, so content comes in whole events."""
    shaper = ResponseShaper(BUCKETED, STREAM)
    with pytest.raises(LocalStateError):
        shaper.content(b"data: x\n")
    shaper.content(b"")


def test_nothing_follows_the_end() -> None:
    """After finish, every call is the caller's fault."""
    shaper = ResponseShaper(BUCKETED, PLAIN)
    shaper.finish()
    for late in (lambda: shaper.content(b""), shaper.flush, shaper.finish):
        with pytest.raises(LocalStateError):
            late()
