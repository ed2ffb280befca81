"""Parse a CCEL: the TCG's crypto-agile event log of a TD's firmware; makes no trust claim.

Source: TCG PC Client Platform Firmware Profile 1.06, sections 9.2 (TCG_PCR_EVENT2) and 9.4.5.1 (Spec ID Event03);
ACPI 6.5 section 5.2.34 (CCEL), with measurement registers 1 to 4 for RTMR0 to RTMR3; integers are little-endian.
"""

import hashlib
from collections.abc import Mapping

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
from confide_attestation.reader import Reader

ALG_SHA384 = 0x000C
SPEC_ID = b"Spec ID Event03\0"
_SPEC_ID_AT = 32
END = 0xFFFFFFFF
EV_SEPARATOR = 0x4
EV_IPL = 0xD
EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
EFI_GPT = 0x80000006
EFI_ACTION = 0x80000007
EFI_VARIABLE_AUTHORITY = 0x800000E0
# Section 10.4.1: for events of these types the digest is that of the event's data.
HASHED_WHOLE = (EV_SEPARATOR, EFI_VARIABLE_DRIVER_CONFIG, EFI_GPT, EFI_ACTION, EFI_VARIABLE_AUTHORITY)
# GRUB and shim put these before what they measured; they are no part of it.
_PREFIXES = (b"", b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: ")


def is_ccel(data: bytes) -> bool:
    """Say whether bytes begin as a CCEL does."""
    return data[_SPEC_ID_AT : _SPEC_ID_AT + len(SPEC_ID)] == SPEC_ID


def parse_ccel(data: bytes) -> EventLog:
    """Parse a CCEL's data, with the 0xFF of its area after it or without.

    Raises: EvidenceMalformed with check `log_format`. Does not check: that any digest is that of its event's data.
    """
    reader = Reader(data, what="no CCEL event log: it", check=EventLogCheck.LOG_FORMAT, order="little")
    sizes = _digest_sizes(reader)
    events = []
    while reader.at < len(data):
        register = reader.uint(4)
        if register == END:
            if data[reader.at :].strip(b"\xff"):
                raise _malformed("bytes other than ff follow its end")
            break
        kind, count = reader.uint(4), reader.uint(4)
        if not 1 <= register <= REGISTERS:
            raise _malformed(f"measurement register {register} is not one of 1 to {REGISTERS}")
        if count != len(sizes):
            raise _malformed(f"an event has {count} digests, the log's own list {len(sizes)}")
        digests = {}
        for _ in range(count):
            algorithm = reader.uint(2)
            if algorithm not in sizes or algorithm in digests:
                raise _malformed(f"a digest of algorithm {algorithm:#06x}, which its own list does not have once")
            digests[algorithm] = reader.take(sizes[algorithm])
        body = reader.take(reader.uint(4))
        if kind != EV_NO_ACTION:
            events.append(Event(register - 1, kind, digests[ALG_SHA384], "", body))
        if len(events) > MAX_EVENTS:
            raise _malformed(f"it has more than {MAX_EVENTS} events")
    return EventLog(LogFormat.CCEL, tuple(events))


def measured(event: Event) -> bytes | None:
    """Return the bytes whose SHA-384 is the event's digest, if they stand in its data."""
    candidates = [event.data]
    if event.kind == EV_IPL:
        texts = [event.data.removesuffix(b"\0")]
        candidates += [text[len(prefix) :] for text in texts for prefix in _PREFIXES if text.startswith(prefix)]
    for candidate in candidates:
        if hashlib.sha384(candidate).digest() == event.digest:
            return candidate
    return None


def is_forged(event: Event) -> bool:
    """Say whether an event whose digest has to be that of its data has another one."""
    return event.kind in HASHED_WHOLE and hashlib.sha384(event.data).digest() != event.digest


def _digest_sizes(reader: Reader) -> Mapping[int, int]:
    """Read the first event, which has the old form and lists the digests of all others."""
    register, kind, _ = reader.uint(4), reader.uint(4), reader.take(20)
    size = reader.uint(4)
    header = reader.within(size)
    if kind != EV_NO_ACTION or register > 1 or header.take(len(SPEC_ID)) != SPEC_ID:
        raise _malformed("its first event is not Spec ID Event03")
    header.take(8)
    sizes = {}
    for _ in range(header.uint(4)):
        algorithm = header.uint(2)
        if algorithm in sizes:
            raise _malformed("its list has an algorithm twice")
        sizes[algorithm] = header.uint(2)
    header.take(header.uint(1))
    if header.at != size or sizes.get(ALG_SHA384) != DIGEST_BYTES:
        raise _malformed("its list has no SHA-384, or is not whole")
    return sizes


def _malformed(detail: str) -> EvidenceMalformed:
    return EvidenceMalformed(f"no CCEL event log: {detail}", EventLogCheck.LOG_FORMAT)
