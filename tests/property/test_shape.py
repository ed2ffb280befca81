"""The bucketed shape holds for any content and any rhythm of flushes."""

from confide_protocol import bhttp
from confide_protocol.shape import BUCKETED, NONE, ResponseShaper, Shape
from confide_protocol.sse import EventSplitter
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=300)
EVENTS = st.lists(TEXT.map(lambda text: b"data: " + text.encode() + b"\n\n"), max_size=8)
TRAILERS = st.integers(0, 9000).map(lambda size: (("confide-receipt", "A" * size),) if size else ())
# What the head takes varies, so that every alignment of the first plaintext comes up.
NAMES = st.integers(1, 1200).map(lambda size: ("x-model", "m" * size))


def read(plaintexts: list[bytes]) -> tuple[bytes, bhttp.Fields]:
    decoder = bhttp.Decoder()
    events = [event for plaintext in plaintexts for event in decoder.push(plaintext)] + decoder.finish()
    assert isinstance(events[-1], bhttp.EndOfMessage)
    content = b"".join(event.data for event in events if isinstance(event, bhttp.Content))
    trailers = [event.fields for event in events if isinstance(event, bhttp.Trailers)]
    return content, trailers[0] if trailers else ()


def is_power_of_two(count: int) -> bool:
    return count > 0 and count & (count - 1) == 0


@given(batches=st.lists(EVENTS, max_size=12), trailers=TRAILERS, name=NAMES)
def test_a_bucketed_stream_shows_only_the_number_of_flushes(
    batches: list[list[bytes]], trailers: bhttp.Fields, name: tuple[str, str]
) -> None:
    """Equal lengths, one plaintext a flush, 2^n in all, and the events come out as they went in."""
    shaper = ResponseShaper(BUCKETED, bhttp.ResponseHead(200, (("content-type", "text/event-stream"), name)))
    plaintexts: list[bytes] = []
    for batch in batches:
        for event in batch:
            shaper.content(event)
        flushed = shaper.flush()
        assert len(flushed) == 1
        plaintexts += flushed
    plaintexts += shaper.finish(trailers)
    assert {len(plaintext) for plaintext in plaintexts} == {BUCKETED.chunk_bytes}
    assert is_power_of_two(len(plaintexts))
    content, received = read(plaintexts)
    splitter = EventSplitter()
    assert splitter.push(content) == [event for batch in batches for event in batch]
    assert (splitter.finish(), received) == (b"", trailers)


@given(body=st.binary(max_size=5000), trailers=TRAILERS, status=st.sampled_from([200, 400, 503]))
def test_a_bucketed_body_shows_only_a_power_of_two(body: bytes, trailers: bhttp.Fields, status: int) -> None:
    """A plain body is 2^n plaintexts of one length, whatever its status, and comes out as it went in."""
    shaper = ResponseShaper(BUCKETED, bhttp.ResponseHead(status, (("content-type", "application/json"),)))
    shaper.content(body)
    assert shaper.flush() == []
    plaintexts = shaper.finish(trailers)
    assert {len(plaintext) for plaintext in plaintexts} == {BUCKETED.chunk_bytes}
    assert is_power_of_two(len(plaintexts))
    assert read(plaintexts) == (body, trailers)


@given(batches=st.lists(EVENTS, max_size=6), trailers=TRAILERS)
def test_without_a_shape_nothing_is_added(batches: list[list[bytes]], trailers: bhttp.Fields) -> None:
    """Shape none carries the same bytes, each flush at once."""
    shaper = ResponseShaper(NONE, bhttp.ResponseHead(200, (("content-type", "text/event-stream"),)))
    plaintexts: list[bytes] = []
    for batch in batches:
        for event in batch:
            shaper.content(event)
        plaintexts += shaper.flush()
    plaintexts += shaper.finish(trailers)
    assert read(plaintexts) == (b"".join(event for batch in batches for event in batch), trailers)


@given(size=st.integers(0, 70_000), shape=st.sampled_from([NONE, BUCKETED]))
def test_a_padded_request_is_a_bucket_and_the_same_request(size: int, shape: Shape) -> None:
    """Padding reaches the least bucket that fits and changes nothing in the message."""
    head = bhttp.RequestHead("POST", "https", "enclave.invalid", "/v1/chat/completions", ())
    message = bhttp.encode_head(head) + bhttp.encode_content(bytes(size)) + bhttp.encode_end()
    padded = shape.pad_request(message)
    assert padded.startswith(message)
    if shape is BUCKETED:
        assert len(padded) in shape.request_buckets
        assert len(padded) == 1024 or len(padded) < 2 * len(message)
    decoder = bhttp.Decoder()
    events = decoder.push(padded) + decoder.finish()
    assert events[0] == head
    assert sum(len(event.data) for event in events if isinstance(event, bhttp.Content)) == size
