"""Changes to a whole event of a log: left out, repeated, moved, added."""

import json
from collections.abc import Iterator
from typing import Any

from tests.conformance import Mutation, checks


def of_list(data: bytes) -> Iterator[Mutation]:
    """Change each event of a list of dstack's."""
    events: list[dict[str, Any]] = json.loads(data)
    for number, event in enumerate(events):
        named = checks(f"rtmr{event['imr']}_replay_mismatch")
        rest = events[:number] + events[number + 1 :]
        yield _list("omit", f"event {number}", rest, named)
        yield _list("repeat", f"event {number}", [*events[: number + 1], *events[number:]], named)
        same = [place for place, each in enumerate(events) if each["imr"] == event["imr"] and place > number]
        if same and events[same[0]]["digest"] != event["digest"]:
            moved = [*events]
            moved[number], moved[same[0]] = moved[same[0]], moved[number]
            yield _list("reorder", f"events {number} and {same[0]}", moved, named)
        other = {**event, "imr": (event["imr"] + 1) % 4}
        yield _list("move", f"event {number}", [*events[:number], other, *events[number + 1 :]], named)


def _list(kind: str, name: str, events: list[dict[str, Any]], named: frozenset[str]) -> Mutation:
    return Mutation(kind, f"log.{name}", {"log": json.dumps(events).encode()}, named)


def of_ccel(data: bytes, spans: list[tuple[int, int]]) -> Iterator[Mutation]:
    """Change each event of a CCEL; `spans` are those of the events that extend a register."""
    for number, (start, end) in enumerate(spans):
        event = data[start:end]
        register = int.from_bytes(event[:4], "little")
        named = checks(f"rtmr{register - 1}_replay_mismatch")
        for kind, changed in (
            ("omit", data[:start] + data[end:]),
            ("repeat", data[:end] + event + data[end:]),
            ("move", data[:start] + (register % 4 + 1).to_bytes(4, "little") + data[start + 4 :]),
        ):
            yield Mutation(kind, f"log.event {number}", {"log": changed}, named)
        later = [span for span in spans[number + 1 :] if data[span[0] : span[0] + 4] == event[:4]]
        if later and data[later[0][0] : later[0][1]] != event:
            after, last = later[0]
            swapped = data[:start] + data[after:last] + data[end:after] + event + data[last:]
            yield Mutation("reorder", f"log.event {number}", {"log": swapped}, named)
