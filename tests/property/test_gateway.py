"""What the gateway reads of its peers: any split gives the same, and arbitrary bytes break nothing."""

from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.fuzz_gateway import answer, gateway_answer, gateway_query
from tests.property.cuts import CUTS, split

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: message/ohttp-chunked-res\r\n"


def framed(chunks: list[bytes], *, chunked: bool) -> bytes:
    if not chunked:
        body = b"".join(chunks)
        return HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    parts = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return HEAD + b"transfer-encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans(), CUTS)
def test_any_split_of_an_answer_gives_the_same(chunks: list[bytes], chunked: bool, cuts: list[int]) -> None:
    """However the network cuts an answer, its status, type and body are those that were sent."""
    pieces = split(framed(chunks, chunked=chunked), cuts)
    assert answer(pieces) == (200, "message/ohttp-chunked-res", b"".join(chunks), True)


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6), st.booleans(), st.data())
def test_a_prefix_of_an_answer_is_never_whole(chunks: list[bytes], chunked: bool, data: st.DataObject) -> None:
    """An answer that lacks its last byte, or more, does not look complete."""
    stream = framed(chunks, chunked=chunked)
    *_, whole = answer([stream[: data.draw(st.integers(0, len(stream) - 1))]])
    assert not whole


@given(st.binary(max_size=300))
@example(b"\x01HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc")
@example(b"\x01HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
def test_arbitrary_bytes_break_nothing(data: bytes) -> None:
    """Neither a node's answer nor a client's query raises, and the split of an answer changes nothing."""
    gateway_answer(data)
    gateway_answer(b"\x01" + HEAD + data)
    gateway_query(data)
