"""Fuzz the comparison of answers: it says same of the same bytes, and only the declared error leaves it."""

from collections.abc import Callable

from confide.replay import contents
from confide_protocol.errors import Malformed
from confide_protocol.sse import EventSplitter


def said(data: bytes) -> None:
    events = EventSplitter().push(data) or [data]
    for kind in ("text/event-stream", "application/json", "text/plain"):
        try:
            contents(kind, events)
        except (Malformed, RecursionError):
            continue


TARGETS: dict[str, Callable[[bytes], None]] = {"said": said}
