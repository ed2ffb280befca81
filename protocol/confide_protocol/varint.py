"""QUIC variable-length integers (RFC 9000 section 16), as OHTTP and binary HTTP count with."""

from confide_protocol.errors import LocalStateError

_SIZES = ((1 << 6, 1, 0b00 << 6), (1 << 14, 2, 0b01 << 14), (1 << 30, 4, 0b10 << 30), (1 << 62, 8, 0b11 << 62))


def encode(value: int) -> bytes:
    """Encode in the fewest bytes (1, 2, 4 or 8). Raises: LocalStateError outside 0 … 2**62-1."""
    for limit, size, mark in _SIZES:
        if 0 <= value < limit:
            return (mark | value).to_bytes(size, "big")
    raise LocalStateError("a variable-length integer holds 0 to 2**62-1")


def read(data: bytes | bytearray, at: int = 0) -> tuple[int, int] | None:
    """Read the integer that starts at `at`: (value, where it ends), or None while bytes are missing.

    Any of the four sizes is accepted for any value, as RFC 9292 section 3 asks.
    """
    if at >= len(data):
        return None
    first = data[at]
    if first < 0x40:
        return first, at + 1
    end = at + (1 << (first >> 6))
    if end > len(data):
        return None
    return int.from_bytes(data[at:end], "big") & ((1 << (8 * (end - at) - 2)) - 1), end
