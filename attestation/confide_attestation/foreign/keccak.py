"""Keccak-256 as Ethereum uses it: SHA-3's permutation with the older padding, for public values alone.

Source: the Keccak reference, version 3.0, 1.2; FIPS 202 for the permutation.
"""

_RATE = 136
PADDING = 1
_LANE = (1 << 64) - 1
# Rotations and places along the one path that rho and pi take together.
_ROTATIONS = (1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44)
_PLACES = (10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1)


def keccak256(data: bytes) -> bytes:
    """Return the 32-byte digest. Not in constant time: never give it a secret."""
    padded = bytearray(data) + bytes([PADDING]) + bytes(-(len(data) + 1) % _RATE)
    padded[-1] |= 0x80
    state = [0] * 25
    for start in range(0, len(padded), _RATE):
        for lane in range(_RATE // 8):
            state[lane] ^= int.from_bytes(padded[start + 8 * lane : start + 8 * lane + 8], "little")
        _permute(state)
    return b"".join(lane.to_bytes(8, "little") for lane in state[:4])


def _permute(state: list[int]) -> None:
    register = 1
    for _ in range(24):
        columns = [state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20] for x in range(5)]
        for x in range(5):
            change = columns[x - 1] ^ _rotated(columns[(x + 1) % 5], 1)
            for y in range(0, 25, 5):
                state[x + y] ^= change
        moved = state[1]
        for rotation, place in zip(_ROTATIONS, _PLACES, strict=True):
            state[place], moved = _rotated(moved, rotation), state[place]
        for y in range(0, 25, 5):
            row = state[y : y + 5]
            for x in range(5):
                state[y + x] = row[x] ^ (~row[(x + 1) % 5] & _LANE & row[(x + 2) % 5])
        for bit in range(7):
            register = (register << 1 ^ (register >> 7) * 0x171) & 0xFF
            if register & 2:
                state[0] ^= 1 << (1 << bit) - 1


def _rotated(lane: int, by: int) -> int:
    return (lane << by | lane >> 64 - by) & _LANE
