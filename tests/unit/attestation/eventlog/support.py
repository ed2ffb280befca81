"""Logs and quotes that belong together, made afresh and bent by tests."""

import hashlib
import json
from functools import cache
from typing import Any

from confide_attestation.eventlog.dstack import RUNTIME_EVENT
from confide_attestation.eventlog.replay import Event, replay
from confide_attestation.eventlog.verify import parse_event_log
from confide_attestation.result import AttestationResult
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.tdx.abi import parse_quote

NOW = 1_790_000_000
REPORT_DATA = b"\x5a" * 64
COMPOSE = hashlib.sha256(b"compose").digest()
BOOT = [
    ("system-preparing", b""),
    ("app-id", COMPOSE[:20]),
    ("compose-hash", COMPOSE),
    ("instance-id", b"\1" * 20),
    ("boot-mr-done", b""),
    ("system-ready", b""),
]
TREE = dict[str, Any]


@cache
def intel() -> SimulatedIntel:
    return SimulatedIntel.make(NOW)


def firmware(imr: int, kind: int, data: bytes, digest: bytes | None = None) -> TREE:
    return {
        "imr": imr,
        "event_type": kind,
        "digest": (digest or hashlib.sha384(data).digest()).hex(),
        "event": "",
        "event_payload": data.hex(),
    }


def runtime(name: str, payload: bytes, version: int = 1) -> TREE:
    """One event of dstack's, its digest as the guest agent makes it."""
    text = RUNTIME_EVENT.to_bytes(4, "little") + b":" + name.encode() + b":" + payload
    if version == 2:
        tree = {"event": name, "event_type": RUNTIME_EVENT, "payload": payload.hex(), "version": 2}
        text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.sha384(text).hexdigest()
    return {
        "imr": 3, "event_type": RUNTIME_EVENT, "digest": digest, "event": name, "event_payload": payload.hex(),
    }  # fmt: skip


def log(*more: TREE, boot: list[tuple[str, bytes]] = BOOT, version: int = 1) -> list[TREE]:
    """Return a log as dstack gives it: firmware, boot, then `more`."""
    measured = [
        firmware(0, 0x80000001, b"SecureBoot"),
        firmware(0, 10, b"ACPI DATA", b"\xac" * 48),
        firmware(1, 4, bytes(4)),
        firmware(2, 6, b"initrd", b"\xbc" * 48),
    ]
    return [*measured, *(runtime(name, payload, version) for name, payload in boot), *more]


def encode(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def quote_of(data: bytes, report_data: bytes = REPORT_DATA) -> bytes:
    """Return the quote of a TD that measured what a log says."""
    return quote_of_events(parse_event_log(data).events, report_data)


def quote_of_events(events: tuple[Event, ...], report_data: bytes = REPORT_DATA) -> bytes:
    registers = {f"rtmr{i}": register for i, register in enumerate(replay(events))}
    padded = intel().sign_quote(report_data, **registers)
    return parse_quote(padded).data


def failed(result: AttestationResult) -> set[str]:
    return {check.id for check in result.failed}
