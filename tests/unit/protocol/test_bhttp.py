"""Binary HTTP: the RFC's examples, its rule for missing sections, and what is refused."""

import pytest
from confide_protocol import bhttp
from confide_protocol.bhttp import Content, EndOfMessage, Event, RequestHead, ResponseHead, Trailers
from confide_protocol.errors import LocalStateError, Malformed, ProtocolError, TooLarge, Truncated

# RFC 9292 section 5.1: the request in known length, and in indeterminate length with ten bytes of padding.
REQUEST_KNOWN = bytes.fromhex(
    "0003474554056874747073000a2f68656c6c6f2e747874406c0a757365722d6167656e74346375726c2f372e31362e33"
    "206c69626375726c2f372e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f77"
    "77772e6578616d706c652e636f6d0f6163636570742d6c616e677561676506656e2c206d690000"
)
REQUEST_INDETERMINATE = bytes.fromhex(
    "0203474554056874747073000a2f68656c6c6f2e7478740a757365722d6167656e74346375726c2f372e31362e33206c"
    "69626375726c2f372e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f777777"
    "2e6578616d706c652e636f6d0f6163636570742d6c616e677561676506656e2c206d6900000000000000000000000000"
)
REQUEST = RequestHead(
    "GET",
    "https",
    "",
    "/hello.txt",
    (
        ("user-agent", "curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3"),
        ("host", "www.example.com"),
        ("accept-language", "en, mi"),
    ),
)
# RFC 9292 section 5.2: a response after two informational ones, and one in known length with a trailer.
RESPONSE = bytes.fromhex(
    "034066 0772756e6e696e670a22736c65657020313522 00 4067 046c696e6b233c2f7374796c652e6373733e3b2072656c"
    "3d7072656c6f61643b2061733d7374796c65 046c696e6b243c2f7363726970742e6a733e3b2072656c3d7072656c6f6164"
    "3b2061733d736372697074 00 40c8 04646174651d4d6f6e2c203237204a756c20323030392031323a32383a353320474d54"
    "067365727665720641706163686500 33 48656c6c6f20576f726c6421204d7920636f6e74656e7420696e636c7564657320"
    "6120747261696c696e672043524c462e0d0a 00 00"
)
RESPONSE_KNOWN = bytes.fromhex(
    "0140c8001d5468697320636f6e74656e7420636f6e7461696e732043524c462e0d0a0d07747261696c65720474657874"
)


def read(*pieces: bytes, **limits: int) -> list[Event]:
    """Decode a message from its pieces, with neighbouring contents joined."""
    decoder = bhttp.Decoder(**limits)
    events: list[Event] = []
    for event in [event for piece in pieces for event in decoder.push(piece)] + decoder.finish():
        if isinstance(event, Content) and events and isinstance(events[-1], Content):
            event = Content(events.pop().data + event.data)
        events.append(event)
    return events


def read_both_ways(data: bytes) -> list[Event]:
    """Decode in one piece and byte by byte, which must agree."""
    events = read(data)
    assert read(*(data[i : i + 1] for i in range(len(data)))) == events
    return events


def test_the_rfc_s_request_in_both_forms() -> None:
    """Both forms of the example decode to the same request, and encode to the same bytes."""
    assert read_both_ways(REQUEST_KNOWN) == [REQUEST, EndOfMessage()]
    assert read_both_ways(REQUEST_INDETERMINATE) == [REQUEST, EndOfMessage()]
    assert bhttp.encode_known_length(REQUEST) == REQUEST_KNOWN
    assert bhttp.encode_head(REQUEST) + bhttp.encode_end() + bytes(10) == REQUEST_INDETERMINATE


def test_the_rfc_s_responses() -> None:
    """Informational responses are dropped, content and trailers arrive."""
    fields = (("date", "Mon, 27 Jul 2009 12:28:53 GMT"), ("server", "Apache"))
    content = Content(b"Hello World! My content includes a trailing CRLF.\r\n")
    assert read_both_ways(RESPONSE) == [ResponseHead(200, fields), content, EndOfMessage()]
    content, trailers = Content(b"This content contains CRLF.\r\n"), (("trailer", "text"),)
    assert read_both_ways(RESPONSE_KNOWN) == [ResponseHead(200), content, Trailers(trailers), EndOfMessage()]
    assert bhttp.encode_known_length(ResponseHead(200), content.data, trailers) == RESPONSE_KNOWN


@pytest.mark.parametrize(("data", "spare"), [(REQUEST_KNOWN, 2), (REQUEST_INDETERMINATE, 12)])
def test_empty_sections_may_be_left_off(data: bytes, spare: int) -> None:
    """Content and trailers that are empty may be missing from the end, and nothing more."""
    for cut in range(1, spare + 1):
        assert read_both_ways(data[:-cut]) == [REQUEST, EndOfMessage()]
    after_control_data = 23
    for end in set(range(len(data) - spare)) - {after_control_data}:
        with pytest.raises(Truncated):
            read_both_ways(data[:end])


@pytest.mark.parametrize("framing", [0, 2])
def test_the_header_section_may_be_left_off(framing: int) -> None:
    """A request may end after its control data, as the chunked OHTTP draft's example does."""
    data = bytes([framing]) + bytes.fromhex("034745540568747470730b6578616d706c652e636f6d012f")
    assert read_both_ways(data) == [RequestHead("GET", "https", "example.com", "/"), EndOfMessage()]


def test_a_message_that_was_cut_never_looks_whole() -> None:
    """Cut anywhere but before its trailer section, a message with content is Truncated."""
    head, content = ResponseHead(200, (("a", "b"),)), b"some content"
    known = bhttp.encode_known_length(head, content, (("t", "v"),))
    pieces = bhttp.encode_head(head) + bhttp.encode_content(content) + bhttp.encode_end((("t", "v"),))
    without_content = {len(bhttp.encode_known_length(head)) - 2, len(bhttp.encode_head(head)), 3}
    for data, before_trailers in ((known, len(known) - 5), (pieces, len(pieces) - 5)):
        for end in set(range(len(data))) - {before_trailers} - without_content:
            with pytest.raises(Truncated):
                read(data[:end])
        assert read(data[:before_trailers]) == [head, Content(content), EndOfMessage()]


def test_an_informational_response_is_not_an_answer() -> None:
    """A stream that ends after 1xx responses has no final one."""
    second_informational, final = RESPONSE.index(b"\x40\x67"), RESPONSE.index(b"\x40\xc8")
    for end in (second_informational, final):
        with pytest.raises(Truncated):
            read_both_ways(RESPONSE[:end])


def test_content_comes_as_it_arrives() -> None:
    """Content is not held back until its chunk is whole."""
    decoder = bhttp.Decoder()
    assert decoder.push(bhttp.encode_head(ResponseHead(200))) == [ResponseHead(200)]
    assert decoder.push(bhttp.encode_content(b"abcdef")[:4]) == [Content(b"abc")]
    assert decoder.push(b"def" + bhttp.encode_end()) == [Content(b"def")]
    assert decoder.finish() == [EndOfMessage()]


def test_content_goes_out_in_chunks() -> None:
    """Empty content is no chunk: a zero length would end the content."""
    assert bhttp.encode_content(b"") == b""
    pieces = (bhttp.encode_content(b"ab"), bhttp.encode_content(b""), bhttp.encode_content(b"c" * 70))
    data = bhttp.encode_head(ResponseHead(200)) + b"".join(pieces) + bhttp.encode_end()
    assert read_both_ways(data) == [ResponseHead(200), Content(b"ab" + b"c" * 70), EndOfMessage()]


HEAD = "034745540568747470730b6578616d706c652e636f6d012f"


@pytest.mark.parametrize(
    "data",
    [
        "04",  # a framing that does not exist
        "4004",  # the same, in two bytes
        "02" + "00" + HEAD[8:],  # no method
        "02" + "03474520" + HEAD[8:],  # a space in the method
        "02" + HEAD[:-4] + "00",  # no path
        "02" + HEAD[:-4] + "0161",  # a path without its slash
        "02" + HEAD[:-4] + "022f20",  # a space in the path
        "02" + HEAD[:-4] + "022f0a",  # a line feed in the path
        "02" + "03474554" + "00" + HEAD[20:],  # no scheme
        "02" + "03474554" + "0568747470730120" + "012f",  # a space in the authority
        "0200",  # all of them empty, by padding
        "0140c7" + "0000",  # 199 in known length: an informational response, then 0
        "0300",  # status 0
        "034258",  # status 600
        "0340c8" + "014101" + "6200",  # an upper-case field name
        "0340c8" + "013a" + "016200",  # a colon in it
        "0340c8" + "073a737461747573" + "016200",  # a pseudo-field
        "0340c8" + "0161" + "03620d0a" + "00",  # a line break in a value
        "0340c8" + "0161" + "0100" + "00",  # a NUL
        "0340c8" + "0161" + "017f" + "00",  # another control byte
        "0340c8" + "0161" + "022062" + "00",  # a value that starts with a space
        "0340c8" + "0161" + "026209" + "00",  # a value that ends with a tab
        "0140c8" + "02" + "0161" + "0162" + "0000",  # a field that runs over its section
        "0140c8" + "06" + "0161" + "0162" + "0000",  # a section that runs over its field: an empty name
        "0340c8" + "00" + "0161" + "00" + "014101" + "6200",  # an upper-case trailer name
        "0340c8" + "00" + "00" + "00" + "0001",  # padding that is not zero
    ],
)
def test_malformed_messages_are_refused(data: str) -> None:
    """Everything that HTTP/2 would call malformed is, whole and byte by byte."""
    raw = bytes.fromhex(data)
    # The end of the stream may come first: an empty name, say, is then a section that was cut.
    with pytest.raises((Malformed, Truncated)):
        read(raw)
    with pytest.raises((Malformed, Truncated)):
        read(*(raw[i : i + 1] for i in range(len(raw))))
    with pytest.raises(Malformed):
        read(raw + b"\0\0\0\0\0\0")


def test_values_may_hold_any_visible_byte() -> None:
    """Tabs and bytes above 0x7f inside a value, and an empty value, go both ways."""
    head = ResponseHead(200, (("a", ""), ("b", "x \t\x80\xff y"), ("a", "again")))
    assert read_both_ways(bhttp.encode_known_length(head)) == [head, EndOfMessage()]


@pytest.mark.parametrize(
    "head",
    [
        RequestHead("GET", "https", "a", ""),
        RequestHead("GE T", "https", "a", "/"),
        RequestHead("GET", "https", "a\n", "/"),
        RequestHead("GET", "https", "a", "/\r\nhost: b"),
        RequestHead("GET", "https", "a", "/ü"),
        RequestHead("GET", "https", "a", "/", (("A", "b"),)),
        RequestHead("GET", "https", "a", "/", (("a", "b\r\nc: d"),)),
        RequestHead("GET", "https", "a", "/", (("a", "snow\u2603"),)),
        RequestHead("GET", "https", "a", "/", (("", "b"),)),
        ResponseHead(100),
        ResponseHead(600),
        ResponseHead(200, (("a", "b\0"),)),
        ResponseHead(200, (("a\n", "b"),)),
    ],
)
def test_invalid_heads_are_not_encoded(head: RequestHead | ResponseHead) -> None:
    """What a peer would have to refuse is our caller's misuse, injected line breaks above all."""
    with pytest.raises(LocalStateError):
        bhttp.encode_head(head)
    with pytest.raises(LocalStateError):
        bhttp.encode_known_length(head)


def test_invalid_trailers_are_not_encoded() -> None:
    """Trailers follow the same rules."""
    with pytest.raises(LocalStateError):
        bhttp.encode_end((("a", "b\n"),))


@pytest.mark.parametrize("known_length", [True, False])
def test_heads_and_trailers_are_bounded(known_length: bool) -> None:
    """A head or trailer section over the limit is refused before it is kept; content has no limit here."""
    fields = (("name", "v" * 400),)
    encode = bhttp.encode_known_length if known_length else encode_indeterminate
    assert read(encode(ResponseHead(200, fields), b"c" * 5000, fields), max_head_bytes=450)
    for message in (encode(ResponseHead(200, fields)), encode(ResponseHead(200), b"c", fields)):
        with pytest.raises(TooLarge):
            read(message, max_head_bytes=400)


def encode_indeterminate(
    head: RequestHead | ResponseHead, content: bytes = b"", trailers: bhttp.Fields = ()
) -> bytes:
    return bhttp.encode_head(head) + bhttp.encode_content(content) + bhttp.encode_end(trailers)


@pytest.mark.parametrize(
    "endless",
    [
        b"\x03" + b"\x40\x66\x00" * 500,  # informational responses
        b"\x03\x40\xc8" + b"\x01a\x00" * 500,  # fields
        b"\x02\xff\xff\xff\xff\xff\xff\xff\xff",  # a method of 2**62-1 bytes
        b"\x01\x40\xc8\xff\xff\xff\xff\xff\xff\xff\xff",  # a section of as many
    ],
)
def test_endless_heads_end(endless: bytes) -> None:
    """Neither many small things nor one announced as huge is waited for."""
    with pytest.raises(TooLarge):
        bhttp.Decoder(max_head_bytes=1000).push(endless)


def test_after_an_error_or_the_end_nothing_is_read() -> None:
    """A decoder that failed or finished refuses more, and never says EndOfMessage afterwards."""
    failed, done = bhttp.Decoder(), bhttp.Decoder()
    with pytest.raises(Malformed):
        failed.push(b"\x07")
    done.push(REQUEST_KNOWN)
    done.finish()
    for decoder in (failed, done):
        for again in (lambda decoder=decoder: decoder.push(REQUEST_KNOWN), decoder.finish):
            with pytest.raises(LocalStateError):
                again()


def test_after_a_cut_between_chunks_nothing_is_read() -> None:
    """Not even a chunk that is whole."""
    decoder = bhttp.Decoder()
    decoder.push(bhttp.encode_head(ResponseHead(200)) + bhttp.encode_content(b"ab"))
    with pytest.raises(Truncated):
        decoder.finish()
    with pytest.raises(LocalStateError):
        decoder.push(bhttp.encode_content(b"cd"))


def test_an_empty_stream_is_truncated() -> None:
    """No bytes are no message."""
    with pytest.raises(Truncated):
        read()
    assert issubclass(Truncated, ProtocolError)


def test_no_repr_shows_content() -> None:
    """Paths, fields and contents stay out of logs and tracebacks."""
    fields = (("authorization", "canary"),)
    for thing in (RequestHead("GET", "https", "canary", "/canary", fields), ResponseHead(200, fields)):
        assert "canary" not in repr(thing)
    assert "canary" not in repr((Content(b"canary"), Trailers(fields)))
