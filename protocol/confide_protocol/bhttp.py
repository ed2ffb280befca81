"""Binary HTTP (RFC 9292): events in and out, known and indeterminate length, split anywhere.

Stricter than the RFC where it lets us choose: padding is checked, pseudo-fields are refused, control bytes in
values are refused. Informational responses are read and dropped.
"""

import inspect
import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from confide_protocol import varint
from confide_protocol.errors import LocalStateError, Malformed, TooLarge, Truncated

MAX_HEAD_BYTES: Final = 32 * 1024

Fields = tuple[tuple[str, str], ...]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_FIELD_VALUE: Final = re.compile(r"(?![ \t])[\t -~\x80-\xff]*(?<![ \t])")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_AUTHORITY: Final = re.compile(r"[!-~]*")
_PATH: Final = re.compile(r"/[!-~]*|\*")


# Heads carry keys and salts, contents carry prompts: no repr shows either.
@dataclass(frozen=True)
class RequestHead:
    method: str
    scheme: str
    authority: str = field(repr=False)
    path: str = field(repr=False)
    fields: Fields = field(default=(), repr=False)


@dataclass(frozen=True)
class ResponseHead:
    status: int
    fields: Fields = field(default=(), repr=False)


@dataclass(slots=True)
class Content:
    """Some bytes of content; how content is cut into events means nothing."""

    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Trailers:
    """The trailer section, where it is not empty."""

    fields: Fields = field(repr=False)


@dataclass(frozen=True)
class EndOfMessage:
    """The message was whole and its padding zero. Comes from `finish` alone."""


Event = RequestHead | ResponseHead | Content | Trailers | EndOfMessage


# --- Encoding


def encode_head(head: RequestHead | ResponseHead) -> bytes:
    """Encode the head of an indeterminate-length message. Raises: LocalStateError for what HTTP forbids."""
    return _encode_start(head, known_length=False) + _encode_fields(head.fields) + b"\0"


def encode_content(data: bytes) -> bytes:
    """Encode one chunk of content; empty content is no chunk."""
    return varint.encode(len(data)) + data if data else b""


def encode_end(trailers: Fields = ()) -> bytes:
    """End the content of an indeterminate-length message and add the trailer section."""
    return b"\0" + _encode_fields(trailers) + b"\0"


def encode_known_length(head: RequestHead | ResponseHead, content: bytes = b"", trailers: Fields = ()) -> bytes:
    """Encode a whole message. Raises: LocalStateError for what HTTP forbids."""
    parts = (_encode_fields(head.fields), content, _encode_fields(trailers))
    return _encode_start(head, known_length=True) + b"".join(map(_prefixed, parts))


def _encode_start(head: RequestHead | ResponseHead, *, known_length: bool) -> bytes:
    if not _is_valid(head):
        raise LocalStateError("the head of the message is not valid HTTP")
    framing = (0 if isinstance(head, RequestHead) else 1) + (0 if known_length else 2)
    if isinstance(head, ResponseHead):
        return bytes([framing]) + varint.encode(head.status)
    control = (head.method, head.scheme, head.authority, head.path)
    return bytes([framing]) + b"".join(_prefixed(part.encode("ascii")) for part in control)


def _encode_fields(fields: Fields) -> bytes:
    if not _are_valid(fields):
        raise LocalStateError("a field's name or value is not valid HTTP")
    return b"".join(_prefixed(part.encode("latin-1")) for pair in fields for part in pair)


def _prefixed(data: bytes) -> bytes:
    return varint.encode(len(data)) + data


def _is_valid(head: RequestHead | ResponseHead) -> bool:
    if isinstance(head, ResponseHead):
        return 200 <= head.status <= 599
    parts = ((_TOKEN, head.method), (_SCHEME, head.scheme), (_AUTHORITY, head.authority), (_PATH, head.path))
    return all(pattern.fullmatch(part) for pattern, part in parts)


def _are_valid(fields: Iterable[tuple[str, str]]) -> bool:
    return all(_FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value) for name, value in fields)


# --- Decoding

T = TypeVar("T")
# A step of the decoder yields while bytes are missing and is resumed when more have come, or none will.
Step = Generator[None, None, T]


class Decoder:
    """Read one message, request or response, from a stream split anywhere.

    Empty sections that the sender left off the end count as empty (RFC 9292 section 3.8). After any error it
    takes no more bytes.
    Does not check: whether the caller wants a request or a response, the size of the content.
    """

    def __init__(self, *, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        """`max_head_bytes` bounds all heads together, informational ones included, and then the trailers."""
        self._max_head_bytes = self._budget = max_head_bytes
        self._buffer = bytearray()
        self._at = 0
        self._ended = self._between_chunks = False
        self._events: list[Event] = []
        self._message = self._read_message()

    def push(self, data: bytes) -> list[Event]:
        """Take bytes as they came; return the events that they complete. Raises: Malformed, TooLarge."""
        if self._between_chunks and not self._ended and not self._buffer and (prefix := varint.read(data)):
            size, start = prefix
            if size and len(data) == start + size:  # one whole chunk: what a stream is made of
                return [Content(data[start:])]
        self._buffer += data
        return self._resume()

    def finish(self) -> list[Event]:
        """Take the end of the stream; the last event is EndOfMessage. Raises: Truncated, Malformed."""
        self._ended = True
        return self._resume()

    def _resume(self) -> list[Event]:
        if inspect.getgeneratorstate(self._message) == inspect.GEN_CLOSED:
            raise LocalStateError("the message has ended or failed")
        next(self._message, None)
        events, self._events = self._events, []
        return events

    def _read_message(self) -> Step[None]:
        framing = yield from self._integer()
        if framing > 3:
            raise Malformed("the framing of a message is not known")
        known_length, response = framing < 2, framing % 2 == 1
        head = yield from (self._response(known_length) if response else self._request(known_length))
        self._events.append(head)
        yield from self._content(known_length)
        self._budget = self._max_head_bytes
        if trailers := (yield from self._fields(known_length)):
            self._events.append(Trailers(trailers))
        yield from self._padding()
        self._events.append(EndOfMessage())

    def _request(self, known_length: bool) -> Step[RequestHead]:
        control = []
        for _ in range(4):
            control.append((yield from self._text((yield from self._integer()))))
        method, scheme, authority, path = control
        head = RequestHead(method, scheme, authority, path, (yield from self._fields(known_length)))
        if not _is_valid(head):
            raise Malformed("the head of a message is not valid HTTP")
        return head

    def _response(self, known_length: bool) -> Step[ResponseHead]:
        while 100 <= (status := (yield from self._integer())) <= 199:
            self._spend(3)  # what the shortest one takes
            yield from self._fields(known_length, optional=False)
        head = ResponseHead(status, (yield from self._fields(known_length)))
        if not _is_valid(head):
            raise Malformed("the head of a message is not valid HTTP")
        return head

    def _fields(self, known_length: bool, *, optional: bool = True) -> Step[Fields]:
        fields: list[tuple[str, str]] = []
        end = None
        if known_length:
            length = yield from self._integer(optional=optional)
            if length > self._budget:
                raise TooLarge
            end = self._at + length
        while self._at != end:
            name_bytes = yield from self._integer(optional=optional and end is None and not fields)
            if not name_bytes and end is None:
                break
            name = yield from self._text(name_bytes)
            fields.append((name, (yield from self._text((yield from self._integer())))))
            if end is not None and self._at > end:
                raise Malformed("a field runs over the end of its section")
        if not _are_valid(fields):
            raise Malformed("a field is not valid HTTP")
        return tuple(fields)

    def _content(self, known_length: bool) -> Step[None]:
        missing = yield from self._integer(optional=True)
        while missing:
            while not self._buffer:
                yield from self._wait()
            data = bytes(self._buffer[:missing])
            del self._buffer[:missing]
            self._events.append(Content(data))
            missing -= len(data)
            if not missing and not known_length:
                self._between_chunks = True
                missing = yield from self._integer()
                self._between_chunks = False

    def _padding(self) -> Step[None]:
        while self._buffer or not self._ended:
            if self._buffer.strip(b"\0"):
                raise Malformed("the padding is not zero")
            self._buffer.clear()
            if not self._ended:
                yield

    def _integer(self, *, optional: bool = False) -> Step[int]:
        """Read a variable-length integer; an optional one that the stream ends before is 0."""
        while (found := varint.read(self._buffer)) is None:
            if optional and self._ended and not self._buffer:
                return 0
            yield from self._wait()
        value, size = found
        del self._buffer[:size]
        self._at += size
        return value

    def _text(self, size: int) -> Step[str]:
        self._spend(1 + size)
        while len(self._buffer) < size:
            yield from self._wait()
        text = self._buffer[:size].decode("latin-1")
        del self._buffer[:size]
        self._at += size
        return text

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise TooLarge

    def _wait(self) -> Step[None]:
        if self._ended:
            raise Truncated
        yield
