"""Variable-length integers."""

import pytest
from confide_protocol import varint
from confide_protocol.errors import LocalStateError

# RFC 9000 appendix A.1, and the edges of every size.
KNOWN = {
    "c2197c5eff14e88c": 151_288_809_941_952_652,
    "9d7f3e7d": 494_878_333,
    "7bbd": 15_293,
    "25": 37,
    "00": 0,
    "3f": 63,
    "4040": 64,
    "7fff": 16_383,
    "80004000": 16_384,
    "bfffffff": (1 << 30) - 1,
    "c000000040000000": 1 << 30,
    "ffffffffffffffff": (1 << 62) - 1,
}


@pytest.mark.parametrize(("encoded", "value"), KNOWN.items())
def test_known_values(encoded: str, value: int) -> None:
    """The RFC's examples and the edges of each size go both ways."""
    assert varint.encode(value).hex() == encoded
    assert varint.read(bytes.fromhex(encoded)) == (value, len(encoded) // 2)


def test_a_longer_encoding_is_read() -> None:
    """A reader takes any size for any value."""
    assert varint.read(bytes.fromhex("4025")) == (37, 2)


@pytest.mark.parametrize("cut", range(8))
def test_missing_bytes_are_waited_for(cut: int) -> None:
    """An integer that is not whole yet reads as None, wherever it starts."""
    assert varint.read(b"\xff" * cut) is None
    assert varint.read(b"\x00" + b"\xff" * cut, 1) is None


@pytest.mark.parametrize("value", [-1, 1 << 62])
def test_values_out_of_range_are_refused(value: int) -> None:
    """Only 0 to 2**62-1 can be written."""
    with pytest.raises(LocalStateError):
        varint.encode(value)
