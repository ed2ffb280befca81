"""Shapes: how much of a message's size an observer sees (SPEC 8). `bucketed` hides sizes, never times."""

from dataclasses import dataclass
from typing import Final

from confide_protocol import bhttp, labels
from confide_protocol.errors import LocalStateError, Malformed, TooLarge

EVENT_STREAM: Final = "text/event-stream"
GREATEST_REQUEST_BUCKET_BYTES: Final = 16 << 20


@dataclass(frozen=True)
class Shape:
    """A named way to pad. `chunk_bytes` is the plaintext length of each response chunk, 0 for any.

    The engine's tokens are flushed `flush_tokens` at a time.
    """

    name: str
    flush_tokens: int
    request_buckets: tuple[int, ...]
    chunk_bytes: int

    def pad_request(self, message: bytes) -> bytes:
        """Pad a whole binary HTTP request with zero bytes (RFC 9292 section 3.8) to the next bucket.

        Raises: TooLarge when it fits none.
        """
        if not self.request_buckets:
            return message
        for bucket in self.request_buckets:
            if len(message) <= bucket:
                return message.ljust(bucket, b"\0")
        raise TooLarge("the request is larger than the shape's greatest bucket")

    def bucket_tokens(self, count: int) -> int:
        """Round a token count up to the next power of two where sizes are hidden; 0 stays 0."""
        return _power_of_two(count) if self.chunk_bytes and count else count


NONE: Final = Shape(labels.SHAPE_NONE, flush_tokens=1, request_buckets=(), chunk_bytes=0)
BUCKETED: Final = Shape(
    labels.SHAPE_BUCKETED,
    flush_tokens=8,
    request_buckets=tuple(1 << n for n in range(10, GREATEST_REQUEST_BUCKET_BYTES.bit_length())),
    chunk_bytes=512,
)
SHAPES: Final = {shape.name: shape for shape in (NONE, BUCKETED)}


def shape_named(name: str) -> Shape:
    """Find a shape. An unknown one is refused, never lowered. Raises: Malformed."""
    if name not in SHAPES:
        raise Malformed("the shape is not known")
    return SHAPES[name]


class ResponseShaper:
    """Encode one response as binary HTTP and cut it into the plaintexts of OHTTP chunks.

    Bucketed: every plaintext is `chunk_bytes` long. A stream gives one for each `flush`, whatever is pending;
    what does not fit waits for the next, what is missing is filled with SSE comment lines. A plain body gives
    nothing before `finish`. `finish` gives the rest, zero-padded so that all plaintexts together are a power
    of two; it serves answers, errors and aborts alike.
    Content of a stream comes in whole events, so that filler never stands inside one.
    Raises: LocalStateError for content that is not, and after `finish`.
    """

    def __init__(self, shape: Shape, head: bhttp.ResponseHead) -> None:
        self._length = shape.chunk_bytes
        self._streams = any(n == "content-type" and v.partition(";")[0] == EVENT_STREAM for n, v in head.fields)
        self._encoded = bytearray(bhttp.encode_head(head))
        self._pending = bytearray()
        self._count = 0
        self._finished = False

    def content(self, data: bytes) -> None:
        self._check_open()
        if self._streams and data and not data.endswith(b"\n\n"):
            raise LocalStateError("a stream's content comes in whole events")
        self._pending += data

    def flush(self) -> list[bytes]:
        """Return what to seal now as chunks that are not final."""
        self._check_open()
        if self._length == 0:
            self._encode_pending(len(self._pending))
            return self._take(len(self._encoded)) if self._encoded else []
        if not self._streams:
            return []
        if (room := self._length - len(self._encoded)) > 0:
            size = _chunk_filling(room)
            while (missing := size - len(self._pending)) > 0:
                self._pending += b":".ljust(missing - 1) + b"\n"
            self._encode_pending(size)
        return self._take(self._length)

    def finish(self, trailers: bhttp.Fields = ()) -> list[bytes]:
        """Return what is left; the last of it is to be sealed as final."""
        self._check_open()
        self._finished = True
        self._encode_pending(len(self._pending))
        self._encoded += bhttp.encode_end(trailers)
        if self._length == 0:
            return self._take(len(self._encoded))
        total = _power_of_two(self._count + -(-len(self._encoded) // self._length))
        self._encoded += bytes((total - self._count) * self._length - len(self._encoded))
        return self._take(self._length, total - self._count)

    def _encode_pending(self, size: int) -> None:
        self._encoded += bhttp.encode_content(bytes(self._pending[:size]))
        del self._pending[:size]

    def _take(self, length: int, count: int = 1) -> list[bytes]:
        end = length * count
        pieces = [bytes(self._encoded[at : at + length]) for at in range(0, end, length)]
        del self._encoded[:end]
        self._count += count
        return pieces

    def _check_open(self) -> None:
        if self._finished:
            raise LocalStateError("the response is finished")


def _chunk_filling(room: int) -> int:
    """Find the least content length whose bhttp chunk fills `room`; for rooms of 1 and 65 it is a byte too long."""
    return max(room - 1, 1) if room <= 64 else max(room - 2, 64)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
