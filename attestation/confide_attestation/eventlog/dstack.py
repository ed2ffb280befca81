"""Parse dstack's event log: a list of events as JSON, or the answer of GetQuote with one; makes no trust claim.

Source: dstack, cc-eventlog (`TdxEvent`, `RuntimeEvent`) and guest agent (`GetQuoteResponse`).
RTMR3 has runtime events alone. Version 1 of them is measured as `type:name:payload`, version 2 as canonical JSON
(RFC 8785). A name with a colon would let two events share one digest in version 1, and is refused there.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.eventlog.ids import EventLogCheck
from confide_attestation.eventlog.replay import (
    DIGEST_BYTES,
    EV_NO_ACTION,
    MAX_EVENTS,
    REGISTERS,
    Event,
    EventLog,
    LogFormat,
)
from confide_attestation.strict_json import load_json

RUNTIME_EVENT = 0x08000001
RUNTIME_RTMR = 3
MAX_NAME = 256
COMPOSE_HASH = "compose-hash"
COMPOSE_HASH_BYTES = 32
# From the first of these on an application may add events of its own.
BOOT_ENDS = ("boot-mr-done", "system-ready")
# The system's own events, each at most once.
SYSTEM_EVENTS = (
    "system-preparing",
    "rootfs-hash",
    "os-image-hash",
    "app-id",
    COMPOSE_HASH,
    "instance-id",
    "boot-mr-done",
    "key-provider",
    "mr-kms",
    "storage-fs",
    "system-ready",
)
_HEX = re.compile("(?:[0-9a-fA-F]{2})*")


def parse_list(data: bytes) -> EventLog:
    """Parse a JSON list of events, or an object with one under `event_log` (a list, or its JSON text).

    Raises: EvidenceMalformed with check `log_format`. Does not check: that any digest is that of its event.
    """
    tree = load_json(data, EventLogCheck.LOG_FORMAT)
    quote = report_data = None
    if isinstance(tree, dict):
        quote, report_data = _optional(tree, "quote"), _optional(tree, "report_data")
        tree = tree.get("event_log")
        if isinstance(tree, str):
            tree = load_json(tree.encode(), EventLogCheck.LOG_FORMAT)
    if not isinstance(tree, list) or not tree:
        raise _malformed("it is JSON, but neither a list of events nor an object with one under event_log")
    if len(tree) > MAX_EVENTS:
        raise _malformed(f"it has more than {MAX_EVENTS} events")
    events = [_event(item, number) for number, item in enumerate(tree)]
    return EventLog(
        LogFormat.LIST, tuple(event for event in events if event.kind != EV_NO_ACTION), quote, report_data
    )


def is_genuine(event: Event) -> bool:
    """Say whether a runtime event's digest is that of its name and payload."""
    if event.kind != RUNTIME_EVENT:
        return False
    first = RUNTIME_EVENT.to_bytes(4, "little") + b":" + event.name.encode() + b":" + event.data
    if hashlib.sha384(first).digest() == event.digest:
        return ":" not in event.name
    second = {"event": event.name, "event_type": RUNTIME_EVENT, "payload": event.data.hex(), "version": 2}
    text = json.dumps(second, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha384(text.encode()).digest() == event.digest


def _event(item: Any, number: int) -> Event:  # noqa: ANN401 - any JSON value
    if not isinstance(item, dict):
        raise _malformed(f"event {number} is no object")
    rtmr, kind = item.get("imr"), item.get("event_type")
    name = item.get("event", "")
    # JSON's true is no number.
    if type(rtmr) is not int or not 0 <= rtmr < REGISTERS:
        raise _malformed(f"event {number} names no register from 0 to {REGISTERS - 1} as imr")
    if type(kind) is not int or not 0 <= kind < 1 << 32:
        raise _malformed(f"event {number} has no event_type of 32 bits")
    if not isinstance(name, str) or len(name) > MAX_NAME or not name.isprintable():
        raise _malformed(f"event {number} has no printable name of at most {MAX_NAME} characters")
    digest, payload = (
        _bytes(item.get(field, ""), f"event {number}: {field}") for field in ("digest", "event_payload")
    )
    if len(digest) != DIGEST_BYTES:
        raise _malformed(f"event {number} has a digest of {len(digest)} bytes; SHA-384 has {DIGEST_BYTES}")
    return Event(rtmr, kind, digest, name, payload)


def _optional(tree: Mapping[str, Any], name: str) -> bytes | None:
    return None if tree.get(name) is None else _bytes(tree[name], name)


def _bytes(value: Any, what: str) -> bytes:  # noqa: ANN401 - any JSON value
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise _malformed(f"{what} is not hexadecimal")
    return bytes.fromhex(value)


def _malformed(detail: str) -> EvidenceMalformed:
    return EvidenceMalformed(f"no event list of dstack: {detail}", EventLogCheck.LOG_FORMAT)
