"""Events, the registers that they make, and what of an event its digest vouches for.

Source: Intel TDX Module ABI, TDG.MR.RTMR.EXTEND: RTMR = SHA-384(RTMR || digest); all registers begin as zero.
A replay authenticates digests and their order alone. Which text a digest stands for has to be recomputed from it;
an event's type and, in CCEL, most names are covered by nothing and are never shown.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

REGISTERS = 4
DIGEST_BYTES = 48
MAX_LOG_BYTES = 1 << 20
MAX_EVENTS = 4096
EV_NO_ACTION = 3


class LogFormat(StrEnum):
    CCEL = "ccel"
    LIST = "event-list"


@dataclass(frozen=True)
class Event:
    """One measured event as the log has it. `rtmr` is 0 to 3; `name` is "" where the format has none."""

    rtmr: int
    kind: int
    digest: bytes
    name: str
    data: bytes


@dataclass(frozen=True)
class EventLog:
    """The events that extend a register, in their order; from dstack's answer also its quote and report data."""

    format: LogFormat
    events: tuple[Event, ...]
    quote: bytes | None = None
    report_data: bytes | None = None


def replay(events: Iterable[Event]) -> tuple[bytes, ...]:
    """Return the four registers that the events make."""
    registers = [bytes(DIGEST_BYTES)] * REGISTERS
    for event in events:
        registers[event.rtmr] = hashlib.sha384(registers[event.rtmr] + event.digest).digest()
    return tuple(registers)
