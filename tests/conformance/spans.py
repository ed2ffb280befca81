"""Where the parts of text formats lie: JSON by path, PEM by certificate, XML by tag. Nothing is judged."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.conformance import Field, Layout

Path = tuple[str | int, ...]
_SPACE = " \t\r\n"
_SCALAR = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Span:
    """A name or a value of a JSON text, without quotes; `path` ends in the name itself."""

    path: Path
    is_name: bool
    start: int
    end: int


def json_spans(text: str) -> Iterator[Span]:
    """Find every name and scalar of one JSON text."""
    end = yield from _value(text, 0, ())
    assert not text[end:].strip(_SPACE)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _value(text: str, at: int, path: Path) -> Iterator[Span]:
    at = _skip(text, at)
    if text[at] in "{[":
        is_object, number = text[at] == "{", 0
        at = _skip(text, at + 1)
        while text[at] not in "}]":
            step: str | int = number
            if is_object:
                match = _STRING.match(text, at)
                assert match
                step = json.loads(match[0])
                yield Span((*path, step), True, at + 1, match.end() - 1)
                at = _skip(text, match.end()) + 1
            at = yield from _value(text, at, (*path, step))
            at = _skip(text, at)
            if text[at] == ",":
                at = _skip(text, at + 1)
            number += 1
        return at + 1
    match = _STRING.match(text, at) or _SCALAR.match(text, at)
    assert match, at
    quoted = text[at] == '"'
    yield Span(path, False, at + quoted, match.end() - quoted)
    return match.end()


def json_layout(data: bytes, name: str, judge: Callable[[Span], Field | None], syntax: Field) -> Layout:
    """Lay a JSON text out: `judge` makes a field of each span or None, all else is `syntax`."""
    text = data.decode("latin-1")
    fields: list[Field] = []
    for span in json_spans(text):
        made = judge(span)
        if made is not None and span.end > span.start:
            fields.append(made)
    return fill(fields, len(data), syntax)


def fill(fields: list[Field], size: int, rest: Field) -> Layout:
    """Make `rest` of every run that no field has."""
    whole, at = [], 0
    for each in sorted(fields, key=lambda f: f.start):
        if each.start > at:
            whole.append(Field(rest.name, at, each.start, rest.checks, rest.dont_care))
        whole.append(each)
        at = each.end
    if at < size:
        whole.append(Field(rest.name, at, size, rest.checks, rest.dont_care))
    return tuple(whole)


def unescaped(text: str) -> tuple[str, list[int]]:
    """Return a JSON string's contents, and where each character of it stands in `text` (and the end)."""
    out, places, at = [], [], 0
    while at < len(text):
        places.append(at)
        size = 1
        if text[at] == "\\":
            size = 6 if text[at + 1] == "u" else 2
        out.append(json.loads(f'"{text[at : at + size]}"'))
        at += size
    return "".join(out), [*places, len(text)]


PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\r?\n(?:[A-Za-z0-9+/=]+\r?\n)+-----END CERTIFICATE-----")


def pem_spans(data: bytes) -> list[tuple[int, int]]:
    """Find each certificate of a PEM text, marks included."""
    return [match.span() for match in PEM.finditer(data)]


def der_children(data: bytes, start: int = 0) -> list[tuple[int, int]]:
    """Return the elements inside the DER sequence at `start`."""
    inner, end = _contents(data, start)
    found = []
    while inner < end:
        after = _contents(data, inner)[1]
        found.append((inner, after))
        inner = after
    return found


def _contents(data: bytes, at: int) -> tuple[int, int]:
    size, start = data[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, start = int.from_bytes(data[start : start + count], "big"), start + count
    return start, start + size
