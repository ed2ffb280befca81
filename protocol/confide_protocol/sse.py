"""Server-sent events as bytes: where one ends and the next begins, filler taken out (WHATWG HTML 9.2.6)."""

from confide_protocol.errors import TooLarge

MAX_EVENT_BYTES = 4 << 20


class EventSplitter:
    """Split a stream into whole events, each with its blank line, without comment lines.

    Lines end in LF, as Confide writes them. A blank line outside an event means nothing and is dropped.
    Raises: TooLarge when one event or line outgrows `max_event_bytes`.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._event = bytearray()
        self._line = bytearray()
        self._scanned = 0

    def push(self, data: bytes) -> list[bytes]:
        one_line = data.count(b"\n") == 2 and data.endswith(b"\n\n") and data[0] not in b":\n"
        if one_line and not self._line and not self._event and len(data) <= self._limit:
            return [data]  # what most streams are made of
        self._line += data
        events = []
        while (end := self._line.find(b"\n", self._scanned) + 1) > 0:
            self._check_size(end)
            line = bytes(self._line[:end])
            del self._line[:end]
            self._scanned = 0
            if line == b"\n" and self._event:
                events.append(bytes(self._event) + line)
                self._event.clear()
            elif line != b"\n" and not line.startswith(b":"):
                self._event += line
        self._scanned = len(self._line)
        self._check_size(self._scanned)
        return events

    def finish(self) -> bytes:
        """Return what came after the last whole event: not empty when the stream was cut within one."""
        rest = b"" if self._line.startswith(b":") else bytes(self._line)
        return bytes(self._event) + rest

    def _check_size(self, line_bytes: int) -> None:
        if len(self._event) + line_bytes > self._limit:
            raise TooLarge("a server-sent event is larger than its limit")
