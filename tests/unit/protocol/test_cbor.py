"""Deterministic CBOR: one value, one encoding, and no tag is interpreted."""

from typing import Any

import cbor2
import pytest
from confide_protocol import cbor
from confide_protocol.errors import Malformed
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (-1, "20"),
        ((1 << 64) - 1, "1bffffffffffffffff"),
        (-(1 << 64), "3bffffffffffffffff"),
        (b"\x01\x02", "420102"),
        ("ü", "62c3bc"),
        ([1, [2]], "82018102"),
        ((1, 2), "820102"),
        (True, "f5"),
        (None, "f6"),
        # RFC 8949 section 4.2.1's own order: shorter encodings first, then bytewise.
        ({"aa": 5, "z": 4, -1: 3, 100: 2, 10: 1}, "a50a0118640220036 17a04626161 05".replace(" ", "")),
    ],
)
def test_known_encodings(value: Any, encoded: str) -> None:
    """Values have the encodings of the RFC, map keys sorted, and decode to themselves."""
    assert cbor.encode(value).hex() == encoded
    decoded = cbor.decode(bytes.fromhex(encoded))
    assert decoded == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    "encoded",
    [
        "",  # nothing
        "0000",  # something after the value
        "1817",  # 23 in two bytes
        "190018",  # 24 in three
        "580100",  # a length in two bytes
        "5f4100ff",  # indefinite length
        "7f6161ff",
        "9f00ff",
        "bf0000ff",
        "a201000000",  # keys not in order
        "a200010002",  # a key twice
        "a1410000",  # a byte string as key
        "a1f500",  # a boolean as key
        "a1800000",  # an array as key
        "f93c00",  # floats
        "fb3ff8000000000000",
        "f97e00",
        "f7",  # undefined
        "e0",  # a simple value
        "62c328",  # text that is not UTF-8
        "81",  # an array that is cut short
        "ff",  # a break without a beginning
        "1c",  # a reserved length
        "9bffffffffffffffff",  # an array of 2**64-1 items
        "5bffffffffffffffff",
        "bbffffffffffffffff",
    ],
)
def test_any_other_encoding_is_refused(encoded: str) -> None:
    """What is not the one encoding of a plain value is Malformed."""
    with pytest.raises(Malformed):
        cbor.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize("tag", [0, 1, 2, 3, 4, 5, 18, 25, 28, 29, 30, 35, 36, 37, 98, 256, 258, 260, 1004, 55799])
@pytest.mark.parametrize("value", [0, b"\xff" * 9, "(", [1, 0]])
def test_tags_are_refused(tag: int, value: Any) -> None:
    """No tag is read, known to cbor2 or not: a peer chooses no class, date or regular expression."""
    with pytest.raises(Malformed):
        cbor.decode(cbor2.dumps([cbor2.CBORTag(tag, value)]))


def test_limits() -> None:
    """Size and depth are bounded, whatever the item holds."""
    assert cbor.decode(b"\x42ab", max_bytes=3) == b"ab"
    with pytest.raises(Malformed):
        cbor.decode(b"\x42ab", max_bytes=2)
    for opening in (b"\x81", b"\xa1\x00", b"\xc1"):
        with pytest.raises(Malformed):
            cbor.decode(opening * 100_000 + b"\x00")


@pytest.mark.parametrize(
    "value", [1.0, 1 << 64, -(1 << 64) - 1, {b"k": 0}, {True: 0}, {1, 2}, cbor2.CBORTag(98, 0), [object()]]
)
def test_other_values_are_not_encoded(value: Any) -> None:
    """What could not be decoded again is not encoded either."""
    with pytest.raises(TypeError):
        cbor.encode(value)


@given(st.sets(st.one_of(st.integers(-(1 << 64), (1 << 64) - 1), st.text(max_size=30))))
def test_keys_stand_in_the_order_of_their_encodings(keys: set[int | str]) -> None:
    """Whatever the keys, they are sorted as their encodings are, byte by byte."""
    ordered = list(cbor2.loads(cbor.encode(dict.fromkeys(keys))))
    assert ordered == sorted(keys, key=cbor2.dumps)
