"""Judge an event log by a TDX quote: that it makes the quote's registers, and what it says against a policy."""

import hashlib
from collections.abc import Sequence

from confide_protocol.errors import PolicyError

from confide_attestation.alone import judge_alone
from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.eventlog.ids import (
    CCEL_CHECKS,
    EVENT_LOG_AUTHENTICITY_CHECKS,
    EVENT_LOG_CHECKS,
    EVENT_LOG_FILES,
    EventLogCheck,
)
from confide_attestation.eventlog.policy import DstackPolicy
from confide_attestation.eventlog.replay import REGISTERS, LogFormat
from confide_attestation.eventlog.verify import Quoted, log_claims, read_log, verify_log
from confide_attestation.evidence import EventLog, TdxEndorsements
from confide_attestation.part import Part
from confide_attestation.policy import AppraisalPolicy, DstackPlatform, GcpPlatform
from confide_attestation.result import AttestationResult
from confide_attestation.tdx.abi import parse_quote
from confide_attestation.tdx.judge import judge_tdx, simulated_root


def verify_event_log(
    log: bytes,
    quote: bytes,
    *,
    now_unix_s: int,
    collateral_json: bytes | None = None,
    policy: AppraisalPolicy | None = None,
    allow_simulated: bool = False,
    root_der: bytes | None = None,
) -> AttestationResult:
    """Judge whether a log is that of a TDX quote's registers, and both by a policy. Never yields a keyset.

    With neither collateral nor policy AUTHENTIC means only that the log fits the quote: the quote itself may be
    anybody's, and `log_quote_unjudged` is SKIP. UNREADABLE means that an input is not a file of its kind.
    Raises: PolicyError if the policy's profile knows no event log.
    """
    kind, demands, of_tdx, roots = None, None, None, simulated_root(root_der)
    if policy is not None:
        if not isinstance(policy.platform, GcpPlatform | DstackPlatform):
            raise PolicyError(policy.id, "platform.profile", f"{policy.platform.profile} knows no event log")
        (kind,), of_tdx, roots = policy.platform.event_logs, policy.tdx, policy.roots
        demands = policy.platform.dstack if isinstance(policy.platform, DstackPlatform) else None
    hardware: Part | None = None
    if collateral_json is not None or policy is not None:
        endorsements = None if collateral_json is None else TdxEndorsements(collateral_json)
        hardware = judge_tdx(quote, endorsements, of_tdx, roots, now_unix_s=now_unix_s)
    ledger = Ledger()
    quoted = _read_quote(ledger, quote)
    part = _judge(ledger, log, quoted, hardware, kind, demands)
    if hardware is not None:
        part = Part(
            hardware.checks + part.checks,
            holds=hardware.holds and part.holds,
            claims={**hardware.claims, **part.claims},
            readable=hardware.readable and part.readable,
        )
    simulated = hardware is not None and roots is not None
    return judge_alone(part, policy, now_unix_s=now_unix_s, simulated=simulated, allow_simulated=allow_simulated)


def judge_logs(logs: Sequence[EventLog], quote: Part, kind: str, policy: DstackPolicy | None) -> Part:
    """Judge the one log of `kind` by the registers of a quote, and dstack's by `policy`; never raises.

    The registers are the quote's claims, which are there only if its signatures hold.
    """
    ledger = Ledger()
    quoted = _quoted(quote)
    if quoted is not None:
        ledger.expect(EventLogCheck.LOG_QUOTE_FORMAT, True, "a TDX quote", "")
    of_kind = [log.data for log in logs if log.kind == kind]
    if len(of_kind) != 1:
        ledger.fail(EventLogCheck.LOG_FORMAT, f"expected one event log of kind {kind}, found {len(of_kind)}")
    return _judge(ledger, of_kind[0] if len(of_kind) == 1 else None, quoted, quote, kind, policy)


def _judge(
    ledger: Ledger,
    data: bytes | None,
    quoted: Quoted | None,
    quote: Part | None,
    kind: str | None,
    policy: DstackPolicy | None,
) -> Part:
    """Judge a log by what a quote says; `quote` is None if nobody judged it, `data` if there is no log."""
    if quote is None:
        ledger.skip(
            EventLogCheck.LOG_QUOTE_UNJUDGED, "the quote's signature was not judged: no collateral was given"
        )
    else:
        ledger.expect(
            EventLogCheck.LOG_QUOTE_UNJUDGED,
            quote.bound is not None,
            "the quote's signatures hold",
            "the quote's signatures do not hold",
        )
    log = None if data is None else read_log(ledger, data, kind)
    if log is not None and quoted is not None:
        verify_log(ledger, log, quoted, policy)
    ccel = log is not None and log.format is LogFormat.CCEL
    needed = CCEL_CHECKS if ccel else EVENT_LOG_AUTHENTICITY_CHECKS
    if quote is None:
        needed = tuple(check_id for check_id in needed if check_id is not EventLogCheck.LOG_QUOTE_UNJUDGED)
    genuine = ledger.holds(needed)
    if policy is not None:
        needed = EVENT_LOG_CHECKS
    elif not ccel:
        ledger.skip(EventLogCheck.COMPOSE_HASH_DENIED, "no policy was given: NOT appraised")
    return Part(
        ledger.close(CCEL_CHECKS if kind == "ccel" else EVENT_LOG_CHECKS),
        holds=ledger.holds(needed),
        claims=log_claims(log, quote_judged=quote is not None) if genuine and log is not None else {},
        readable=not ledger.failed(EVENT_LOG_FILES),
    )


def _read_quote(ledger: Ledger, data: bytes) -> Quoted | None:
    try:
        quote = parse_quote(data)
    except EvidenceMalformed as fault:
        ledger.fail(EventLogCheck.LOG_QUOTE_FORMAT, str(fault))
        return None
    ledger.expect(EventLogCheck.LOG_QUOTE_FORMAT, True, f"a TDX quote of version {quote.version}", "")
    registers = tuple(quote.field(f"rtmr{number}") for number in range(REGISTERS))
    return Quoted(registers, quote.field("report_data"), hashlib.sha256(quote.signed).hexdigest())


def _quoted(quote: Part) -> Quoted | None:
    """Read from a quote's claims, which are there only if its signatures hold."""
    claims = quote.claims.get("cpu0")
    if claims is None or quote.bound is None:
        return None
    registers = tuple(bytes.fromhex(str(claims[f"rtmr{number}"])) for number in range(REGISTERS))
    return Quoted(registers, quote.bound, str(claims["signed_sha256"]))
