"""Hide the sizes of answers by what readers pass over: comment lines in streams, blanks after JSON (SPEC 11.6).

`bucketed` of clause 8, as far as the dialect goes: a request is as long as its client makes it.
"""

from confide_protocol.shape import Shape


class Filler:
    """Cut one answer into the plaintexts of frames. In a shape without chunks nothing is filled.

    A stream's content comes in whole events, so that filler never stands inside one.
    """

    def __init__(self, shape: Shape, *, streams: bool) -> None:
        self._length, self._streams = shape.chunk_bytes, streams
        self._pending = bytearray()
        self._count = 0

    def flush(self, events: bytes) -> bytes:
        """Return the one frame that goes out now, whatever is pending; what does not fit waits for the next."""
        self._pending += events
        return self._take()

    def finish(self, rest: bytes) -> list[bytes]:
        """Return what is left, as many frames as make their number a power of two; a body is one frame."""
        self._pending += rest
        if not self._length:
            return [bytes(self._pending)]
        left = -(-len(self._pending) // self._length)
        if not self._streams:
            return [bytes(self._pending).ljust(self._length * _power_of_two(left))]
        return [self._take() for _ in range(_power_of_two(self._count + left) - self._count)]

    def _take(self) -> bytes:
        size = self._length or len(self._pending)
        if missing := max(0, size - len(self._pending)):
            self._pending += b"\n" if missing == 1 else b":".ljust(missing - 1) + b"\n"
        frame = bytes(self._pending[:size])
        del self._pending[:size]
        self._count += 1
        return frame


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
