"""Compare an event log with a quote's registers: replay, recomputed digests, dstack's compose hash.

Only what was recomputed from a digest that the registers vouch for is shown, under its register and place in it.
Does not check: the quote, the values of registers and events (a policy's matter).
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.eventlog import ccel, dstack
from confide_attestation.eventlog.ccel import is_ccel, parse_ccel
from confide_attestation.eventlog.dstack import parse_list
from confide_attestation.eventlog.ids import DSTACK_CHECKS, REPLAY_CHECKS, EventLogCheck
from confide_attestation.eventlog.policy import DstackPolicy
from confide_attestation.eventlog.replay import MAX_LOG_BYTES, Event, EventLog, LogFormat, replay
from confide_attestation.tdx.abi import parse_quote

Claims = dict[str, str | int | bool]
MAX_SHOWN = 1024
FORMATS = {"ccel": LogFormat.CCEL, "dstack": LogFormat.LIST}


@dataclass(frozen=True)
class Quoted:
    """What of a quote a log is compared with; `signed_sha256` is of the bytes that identify the quote."""

    registers: tuple[bytes, ...]
    report_data: bytes
    signed_sha256: str


def parse_event_log(data: bytes) -> EventLog:
    """Parse a CCEL, an event list or dstack's answer to GetQuote, whichever it is.

    Raises: EvidenceMalformed with check `log_format`.
    """
    if len(data) > MAX_LOG_BYTES:
        raise EvidenceMalformed(f"a log of {len(data)} bytes is too large", EventLogCheck.LOG_FORMAT)
    if data.lstrip()[:1] in (b"[", b"{"):
        return parse_list(data)
    if not is_ccel(data):
        raise EvidenceMalformed(
            "expected a CCEL event log, an event list as JSON or dstack's GetQuote answer, "
            f"found {len(data)} bytes that are none of them",
            EventLogCheck.LOG_FORMAT,
        )
    return parse_ccel(data)


def read_log(ledger: Ledger, data: bytes, kind: str | None = None) -> EventLog | None:
    """Parse a log, of `kind` if that is given; None if it is none."""
    try:
        log = parse_event_log(data)
    except EvidenceMalformed as fault:
        ledger.fail(EventLogCheck.LOG_FORMAT, str(fault))
        return None
    wanted = FORMATS.get(kind or "", log.format)
    ledger.expect(
        EventLogCheck.LOG_FORMAT,
        log.format is wanted,
        f"{log.format}, {len(log.events)} events",
        f"expected a log of kind {kind}, found one in the form {log.format}",
    )
    return log if log.format is wanted else None


def verify_log(ledger: Ledger, log: EventLog, quoted: Quoted, policy: DstackPolicy | None) -> None:
    """Judge a log by a quote, and dstack's application by the policy."""
    _check_same_quote(ledger, log, quoted)
    verify_replay(ledger, log, quoted.registers)
    if policy is None or not ledger.passed((EventLogCheck.RTMR3_REPLAY, EventLogCheck.COMPOSE_HASH)):
        return
    compose_hash = next(event.data.hex() for event in log.events if _is_compose_hash(log, event))
    ledger.expect(
        EventLogCheck.COMPOSE_HASH_DENIED,
        compose_hash in policy.compose_hashes,
        f"{compose_hash[:16]}… is pinned",
        f"{compose_hash[:16]}… is none of the {len(policy.compose_hashes)} pinned applications",
    )


def verify_replay(ledger: Ledger, log: EventLog, registers: tuple[bytes, ...]) -> None:
    """Judge a log by the four registers of a quote, and its events by their digests."""
    ledger.expect(
        EventLogCheck.RTMRS_ZERO,
        any(map(any, registers)),
        "something was measured",
        "nothing was measured into the quote's RTMRs; on Azure the vTPM's PCRs hold it: confide verify azure",
    )
    for number, (check_id, found) in enumerate(zip(REPLAY_CHECKS, replay(log.events), strict=True)):
        count = sum(event.rtmr == number for event in log.events)
        ledger.expect(
            check_id,
            found == registers[number],
            f"{count} events make {found.hex()[:16]}…, as in the quote",
            f"{count} events make {found.hex()[:16]}…, the quote has {registers[number].hex()[:16]}…",
        )
    forged = [place for place, event in zip(_places(log), log.events, strict=True) if _is_forged(log, event)]
    if log.format is LogFormat.CCEL:
        for check_id in DSTACK_CHECKS:
            ledger.skip(check_id, "a CCEL has no events of dstack")
    else:
        _check_system_events(ledger, [event for event in log.events if _is_runtime(log, event)])
    recomputed = sum(_shown(log, event) is not None for event in log.events)
    ledger.expect(
        EventLogCheck.EVENT_DIGEST,
        not forged,
        f"{recomputed} of {len(log.events)} events are recomputed from their digests; no other is shown",
        "the digest is not that of the event: " + ", ".join(forged[:8]),
    )


def _check_system_events(ledger: Ledger, runtime: list[Event]) -> None:
    names = [event.name for event in runtime]
    twice = [name for name, count in Counter(names).items() if count > 1 and name in dstack.SYSTEM_EVENTS]
    ledger.expect(
        EventLogCheck.EVENT_DUPLICATE,
        not twice,
        "each of dstack's own events is there at most once",
        "there more than once: " + ", ".join(twice),
    )
    at = names.index(dstack.COMPOSE_HASH) if dstack.COMPOSE_HASH in names else len(names)
    ends = min((names.index(end) for end in dstack.BOOT_ENDS if end in names), default=len(names))
    fault = ""
    if at == len(names):
        fault = "there is none"
    elif at > ends:
        fault = f"the first comes after {names[ends]}, when an application may write it"
    elif len(runtime[at].data) != dstack.COMPOSE_HASH_BYTES:
        fault = f"it has {len(runtime[at].data)} bytes, SHA-256 has {dstack.COMPOSE_HASH_BYTES}"
    passed = "" if fault else f"{runtime[at].data.hex()[:16]}…, before the application's own events"
    ledger.expect(EventLogCheck.COMPOSE_HASH, not fault, passed, fault)


def _check_same_quote(ledger: Ledger, log: EventLog, quoted: Quoted) -> None:
    """Judge whether the quote and report data that came with the log are those of the quote given beside it."""
    faults = []
    if log.quote is not None:
        try:
            other = hashlib.sha256(parse_quote(log.quote).signed).hexdigest()
        except EvidenceMalformed:
            other = ""
        if other != quoted.signed_sha256:
            faults.append("the quote that came with the log is another one")
    if log.report_data is not None and log.report_data.ljust(64, b"\0") != quoted.report_data:
        faults.append("the report data that came with the log are not the quote's")
    came = log.quote is not None or log.report_data is not None
    ledger.expect(
        EventLogCheck.LOG_QUOTE_MISMATCH,
        not faults,
        "what came with the log is of the same quote" if came else "no quote came with the log",
        "; ".join(faults),
    )


def log_claims(log: EventLog, *, quote_judged: bool) -> dict[str, Claims]:
    """Return what a log that replays shows: the registers, recomputed events, dstack's own values."""
    summary: Claims = {"format": log.format.value, "events": len(log.events), "quote_judged": quote_judged}
    shown: Claims = {}
    system: Claims = {}
    for place, event in zip(_places(log), log.events, strict=True):
        text = _shown(log, event)
        if text is not None:
            shown[place] = text
        if _is_runtime(log, event) and event.name in dstack.SYSTEM_EVENTS and event.data:
            system[event.name.replace("-", "_")] = event.data.hex()
    summary["recomputed"] = len(shown)
    for number, register in enumerate(replay(log.events)):
        summary[f"rtmr{number}"] = register.hex()
    return {"event_log": summary, "events": shown} | ({"dstack": system} if system else {})


def _shown(log: EventLog, event: Event) -> str | None:
    """Return what an event's digest vouches for, as text; None if that cannot be recomputed."""
    if _is_runtime(log, event):
        return f"{event.name}: {_text(event.data)}" if dstack.is_genuine(event) else None
    measured = ccel.measured(event)
    return None if measured is None else _text(measured)


def _is_forged(log: EventLog, event: Event) -> bool:
    if _is_runtime(log, event):
        return not dstack.is_genuine(event)
    # dstack leaves out what firmware measured.
    left_out = log.format is LogFormat.LIST and not event.data
    return not left_out and ccel.is_forged(event)


def _is_runtime(log: EventLog, event: Event) -> bool:
    return log.format is LogFormat.LIST and event.rtmr == dstack.RUNTIME_RTMR


def _is_compose_hash(log: EventLog, event: Event) -> bool:
    return _is_runtime(log, event) and event.name == dstack.COMPOSE_HASH


def _text(data: bytes) -> str:
    """Write printable ASCII as it is, anything else in hexadecimal, and only the length of what is long."""
    if len(data) > MAX_SHOWN:
        return f"{len(data)} bytes"
    readable = data.isascii() and data.replace(b"\n", b"").decode().isprintable()
    return data.decode() if readable else f"0x{data.hex()}"


def _places(log: EventLog) -> list[str]:
    """Name each event by its register and its place in it: both are what the replay vouches for."""
    counts: Counter[int] = Counter()
    places = []
    for event in log.events:
        places.append(f"rtmr{event.rtmr}[{counts[event.rtmr]}]")
        counts[event.rtmr] += 1
    return places
