"""Binary HTTP, key configurations, CBOR and statements: any cut, any bytes."""

from contextlib import suppress
from typing import Any

from confide_protocol import bhttp, cbor, varint
from confide_protocol.bhttp import Content, Event, RequestHead, ResponseHead
from confide_protocol.errors import Malformed, ProtocolError, Truncated
from confide_protocol.keyconfig import KeyConfig, encode_key_configs, parse_key_configs
from confide_protocol.keyset import parse_keyset, parse_manifest
from confide_protocol.statement import coalesce_nonces, parse_statement
from hypothesis import example, given
from hypothesis import strategies as st

from tests.property.cuts import CUTS, split

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12)
VISIBLE = st.text([chr(c) for c in (*range(0x21, 0x7F), *range(0x80, 0x100))], max_size=20)
FIELDS = st.lists(st.tuples(TOKEN, st.one_of(VISIBLE, st.just("a b\tc"))), max_size=5).map(tuple)
ASCII = st.text([chr(c) for c in range(0x21, 0x7F)], max_size=20)
HEADS = st.one_of(
    st.builds(RequestHead, TOKEN, st.sampled_from(["https", "http"]), ASCII, ASCII.map("/".__add__), FIELDS),
    st.builds(ResponseHead, st.integers(200, 599), FIELDS),
)
PIECES = st.lists(st.binary(max_size=100), max_size=5)


def outcome(pieces: list[bytes]) -> list[Event] | type[ProtocolError]:
    """All events with neighbouring contents joined, or the class of the error."""
    decoder = bhttp.Decoder(max_head_bytes=600)
    events: list[Event] = []
    try:
        for event in [event for piece in pieces for event in decoder.push(piece)] + decoder.finish():
            if isinstance(event, Content) and events and isinstance(events[-1], Content):
                event = Content(events.pop().data + event.data)
            events.append(event)
    except ProtocolError as error:
        return type(error)
    return events


def messages(head: RequestHead | ResponseHead, contents: list[bytes], trailers: bhttp.Fields) -> list[bytes]:
    """One message in both of its forms."""
    chunks = b"".join(bhttp.encode_content(data) for data in contents)
    return [
        bhttp.encode_known_length(head, b"".join(contents), trailers),
        bhttp.encode_head(head) + chunks + bhttp.encode_end(trailers),
    ]


@given(head=HEADS, contents=PIECES, trailers=FIELDS, padding=st.integers(0, 300), cuts=CUTS)
def test_a_message_comes_back_however_it_is_cut(
    head: RequestHead | ResponseHead, contents: list[bytes], trailers: bhttp.Fields, padding: int, cuts: list[int]
) -> None:
    """Both forms give the same events under any cut and any padding."""
    expected: list[Event] = [head]
    expected += [Content(b"".join(contents))] if any(contents) else []
    expected += [bhttp.Trailers(trailers)] if trailers else []
    expected.append(bhttp.EndOfMessage())
    for message in messages(head, contents, trailers):
        assert outcome(split(message + bytes(padding), cuts)) == expected


@given(head=HEADS, contents=PIECES, trailers=FIELDS.filter(len), end=st.integers(0, 10_000))
def test_a_message_with_trailers_never_looks_whole_when_cut(
    head: RequestHead | ResponseHead, contents: list[bytes], trailers: bhttp.Fields, end: int
) -> None:
    """A cut message is Truncated, or ends where the RFC lets sections be left off, and then has no trailers."""
    for message in messages(head, contents, trailers):
        found = outcome([message[: end % len(message)]])
        assert found is Truncated or not any(isinstance(event, bhttp.Trailers) for event in found)


@given(head=HEADS, contents=PIECES, at=st.integers(0, 10_000), byte=st.integers(0, 255), cuts=CUTS)
def test_damage_reads_the_same_however_it_is_cut(
    head: RequestHead | ResponseHead, contents: list[bytes], at: int, byte: int, cuts: list[int]
) -> None:
    """A message with one other byte gives the same events or the same error under any cut."""
    for message in messages(head, contents, (("t", "v"),)):
        damaged = bytearray(message)
        damaged[at % len(message)] = byte
        assert outcome(split(bytes(damaged), cuts)) == outcome([bytes(damaged)])


@given(data=st.binary(max_size=300), framing=st.integers(0, 3), cuts=CUTS)
@example(data=b"\x40\x66", framing=3, cuts=[])
def test_arbitrary_bytes_read_the_same_however_they_are_cut(data: bytes, framing: int, cuts: list[int]) -> None:
    """Noise gives events or one declared error, whatever the cut."""
    stream = bytes([framing]) + data
    assert outcome(split(stream, cuts)) == outcome([stream])


@given(value=st.integers(0, (1 << 62) - 1), rest=st.binary(max_size=3))
def test_integers_come_back(value: int, rest: bytes) -> None:
    """A variable-length integer reads as itself, and not before it is whole."""
    encoded = varint.encode(value)
    assert varint.read(encoded + rest) == (value, len(encoded))
    assert all(varint.read(encoded[:end]) is None for end in range(len(encoded)))


PAIRS = st.lists(st.tuples(st.integers(0, 65_535), st.integers(0, 65_535)), min_size=1, max_size=4).map(tuple)
SIZES = {0x0020: 32, 0x647A: 1216}
CONFIGS = st.lists(
    st.one_of(
        st.sampled_from(sorted(SIZES)).flatmap(
            lambda kem: st.builds(
                KeyConfig,
                st.integers(0, 255),
                st.just(kem),
                st.binary(min_size=SIZES[kem], max_size=SIZES[kem]),
                PAIRS,
            )
        ),
        st.builds(KeyConfig, st.integers(0, 255), st.just(0x0050), st.binary(max_size=50), st.just(())),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda config: config.key_id,
)


@given(configs=CONFIGS)
def test_key_configurations_come_back(configs: list[KeyConfig]) -> None:
    """Any list of known and unknown keys goes both ways."""
    assert parse_key_configs(encode_key_configs(configs)) == tuple(configs)


@given(configs=CONFIGS, end=st.integers(0, 10_000), data=st.binary(max_size=60))
def test_arbitrary_bytes_are_no_key_configurations(configs: list[KeyConfig], end: int, data: bytes) -> None:
    """What parses encodes back to the same bytes; what does not is Malformed."""
    encoded = encode_key_configs(configs)
    for stream in (data, encoded[: end % len(encoded)] + data):
        with suppress(Malformed):
            assert encode_key_configs(parse_key_configs(stream)) == stream


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 64), (1 << 64) - 1), st.binary(max_size=30), st.text(max_size=30)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(st.integers(-300, 300), st.text(max_size=5)), inner, max_size=5),
    ),
    max_leaves=20,
)


@given(value=VALUES)
def test_cbor_values_come_back(value: Any) -> None:
    """A plain value has one encoding and decodes to itself."""
    assert cbor.decode(cbor.encode(value)) == value


@given(value=VALUES, at=st.integers(0, 10_000), byte=st.integers(0, 255), noise=st.binary(max_size=60))
def test_cbor_that_decodes_is_canonical(value: Any, at: int, byte: int, noise: bytes) -> None:
    """Damaged or arbitrary bytes either are the one encoding of their value, or Malformed."""
    damaged = bytearray(cbor.encode(value))
    damaged[at % len(damaged)] = byte
    for data in (bytes(damaged), noise):
        with suppress(Malformed):
            assert cbor.encode(cbor.decode(data)) == data


@given(data=st.one_of(st.binary(max_size=100), VALUES.map(cbor.encode)))
def test_arbitrary_bytes_are_no_statement(data: bytes) -> None:
    """Parsers of statements raise Malformed alone."""
    for parse in (parse_keyset, parse_manifest, parse_statement):
        with suppress(Malformed):
            parse(data)


@given(nonces=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70, unique=True))
def test_coalesced_nonces_reach_one_root(nonces: list[bytes]) -> None:
    """Every path leads from its own nonce to the root, and is no longer than the tree is deep."""
    root, paths = coalesce_nonces(nonces)
    for nonce, path in zip(nonces, paths, strict=True):
        assert path.root(nonce) == root
        assert len(path.steps) <= (len(nonces) - 1).bit_length()
