"""Fuzz the readers of event logs, and what is shown of a log that fits a quote."""

import hashlib
import json
import struct
from collections.abc import Callable

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.eventlog.ccel import SPEC_ID, parse_ccel
from confide_attestation.eventlog.dstack import RUNTIME_EVENT, parse_list
from confide_attestation.eventlog.ids import EVENT_LOG_CHECKS
from confide_attestation.eventlog.judge import judge_logs
from confide_attestation.eventlog.policy import DstackPolicy
from confide_attestation.eventlog.replay import replay
from confide_attestation.eventlog.verify import parse_event_log, verify_replay
from confide_attestation.evidence import EventLog
from confide_attestation.part import Part

COMPOSE = bytes(range(32))
_TEXT = RUNTIME_EVENT.to_bytes(4, "little") + b":compose-hash:" + COMPOSE
_EVENT = {
    "imr": 3,
    "event_type": RUNTIME_EVENT,
    "digest": hashlib.sha384(_TEXT).hexdigest(),
    "event": "compose-hash",
    "event_payload": COMPOSE.hex(),
}
LIST = json.dumps([_EVENT]).encode()
REGISTERS = replay(parse_list(LIST).events)
QUOTE = Part(
    (),
    holds=True,
    claims={
        "cpu0": {"signed_sha256": "", **{f"rtmr{at}": register.hex() for at, register in enumerate(REGISTERS)}}
    },
    bound=bytes(64),
)


def ccel(data: bytes) -> None:
    try:
        parse_ccel(data)
    except EvidenceMalformed:
        return


def event_list(data: bytes) -> None:
    """Nothing raises; a list that fits the registers has the one compose hash that they hold."""
    try:
        log = parse_list(data)
    except EvidenceMalformed:
        return
    ledger = Ledger()
    verify_replay(ledger, log, REGISTERS)
    if not ledger.failed(EVENT_LOG_CHECKS):
        assert [event.data for event in log.events] == [COMPOSE]


def replayed(data: bytes) -> None:
    """Any log fits its own registers, and is then judged without a fault of ours."""
    try:
        log = parse_event_log(data)
    except EvidenceMalformed:
        return
    verify_replay(Ledger(), log, replay(log.events))


def judged(data: bytes) -> None:
    """Any bytes in the place of either log: nothing raises, and only the measured application holds."""
    for kind, policy in (("ccel", None), ("dstack", DstackPolicy(compose_hashes=(COMPOSE.hex(),)))):
        part = judge_logs((EventLog(kind, data),), QUOTE, kind, policy)
        if part.holds and kind == "dstack":
            assert part.claims["dstack"] == {"compose_hash": COMPOSE.hex()}


def seeds() -> dict[str, list[bytes]]:
    spec = SPEC_ID + bytes(8) + struct.pack("<IHH", 1, 0x0C, 48) + b"\0"
    first = struct.pack("<II20xI", 1, 3, len(spec)) + spec
    separator = struct.pack("<IIIH", 1, 4, 1, 0x0C) + hashlib.sha384(bytes(4)).digest() + b"\4\0\0\0" + bytes(4)
    log = first + separator + b"\xff" * 8
    answer = json.dumps({"quote": "00", "report_data": "00", "event_log": LIST.decode()}).encode()
    return {
        "ccel": [log],
        "event_list": [LIST, answer],
        "event_log_replayed": [log, LIST, answer],
        "event_log_judged": [log, LIST, answer],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    "ccel": ccel,
    "event_list": event_list,
    "event_log_replayed": replayed,
    "event_log_judged": judged,
}
