"""Render a result as the text that people read: CLI, demo and logs show the same lines."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby

from confide_attestation.result import AttestationResult, Check, Outcome, Verdict
from confide_attestation.sections import Topic, sections

SIMULATED_BANNER = "*** SIMULATED HARDWARE *** this proves nothing about any real machine ***"
_CPU = frozenset({Topic.SNP, Topic.TDX})
_NONCES = frozenset({"nonce", "tpm_nonce", "provider_request_nonce", "provider_challenge"})
_DAY_S = 86_400
# Claims that say when something ends, by how their names end.
_ENDS = ("next_update", "expires", "not_after")
_MAX_UNIX_S = 253_402_300_799
_REVOCATION = frozenset({"crl_format", "device_chain_ocsp", "rim_ocsp"})


def render_transcript(result: AttestationResult, notes: Sequence[str] = ()) -> str:
    """Return one line a check by topics, what ends first, what the result does not show, then the verdict.

    Skipped checks of one reason share a line. Simulated hardware stands under a banner. `notes` are more that is
    not shown.
    """
    lines = [SIMULATED_BANNER] if result.simulated else []
    lines.append(f"policy: {policy_text(result)}; judged as of {utc(result.judged_at_unix_s)}")
    parts = sections(result.checks)
    for part in parts:
        if len(parts) > 1:
            lines.append(f"{part.title}:")
        for (outcome, detail, _), same in groupby(part.checks, _same_line):
            lines.append(f"{outcome} {', '.join(check.id for check in same)} — {plain(detail)}")
    for name, end in expiries(result)[:1]:
        lines.append(f"ends first: {name}, {utc(end)} ({left(end - result.judged_at_unix_s)})")
    lines += [f"not shown: {limit}" for limit in limits(result, notes)]
    lines.append(verdict_line(result))
    return "\n".join(lines)


def verdict_line(result: AttestationResult) -> str:
    """Return the verdict in one line, with every failed check's id."""
    counts = {outcome: sum(check.outcome is outcome for check in result.checks) for outcome in Outcome}
    count = f"{counts[Outcome.PASS]} passed, {counts[Outcome.SKIP]} skipped"
    if result.verdict is Verdict.AUTHENTIC:
        return f"authentic, NOT appraised: {count}"
    if result.verdict is Verdict.ACCEPTED:
        simulated = " (SIMULATED HARDWARE)" if result.simulated else ""
        alone = "" if result.keyset is not None else "; the report alone: no keyset was judged"
        return f"accepted{simulated}: {count}{alone}"
    return f"{result.verdict}: " + ", ".join(check.id for check in result.failed)


def limits(result: AttestationResult, notes: Sequence[str] = ()) -> tuple[str, ...]:
    """Say what a result that holds does not show; nothing is shown by one that does not hold."""
    if result.verdict not in (Verdict.AUTHENTIC, Verdict.ACCEPTED):
        return ()
    topics = {section.topic for section in sections(result.checks)}
    skipped = {check.id for check in result.checks if check.outcome is Outcome.SKIP}
    judged = {check.id for check in result.checks} - skipped
    said = []
    if result.verdict is Verdict.AUTHENTIC:
        said.append("that what runs is what you want: no policy was given")
    if result.keyset is None:
        said.append("any keyset: nothing can be sealed to what was judged here")
    if not judged & _NONCES and topics & _CPU:
        said.append("when it was made, and for whom: no nonce was compared")
    if skipped & _REVOCATION:
        said.append("that nothing was revoked: lists or answers are missing")
    if Topic.NVIDIA in topics and not (topics & _CPU and result.keyset is not None):
        said.append("that confidential computing is on, and in which machine the devices are")
    if Topic.NRAS in topics:
        said.append("the devices' own evidence: the holder of the given keys says what it was")
    if result.keyset is not None and result.keyset.keyset.ehbp_key is not None:
        said.append("what those get who ask by EHBP, a weaker protocol that is answered too, by a key of its own")
    said.append("that the software has no faults, and that nobody opens the machine to attack it by hand")
    return (*said, *notes)


def expiries(result: AttestationResult) -> tuple[tuple[str, int], ...]:
    """Return what ends when, the first end first: the result itself, and what its claims say."""
    found = [
        (f"{group}: {name}", value)
        for group, claims in result.claims.items()
        for name, value in claims.items()
        if name.endswith(_ENDS) and type(value) is int and 0 <= value <= _MAX_UNIX_S
    ]
    if result.keyset is not None:
        found.append(("this result", result.keyset.valid_until_unix_s))
    return tuple(sorted(found, key=lambda each: each[1]))


def left(seconds: int) -> str:
    """Say how much time is left, as of the judged time."""
    if seconds < 0:
        return f"ended {-seconds // _DAY_S} days before"
    return f"{seconds // _DAY_S} days left" if seconds >= _DAY_S else f"{seconds // 60} minutes left"


def policy_text(result: AttestationResult) -> str:
    digest = "" if result.policy_digest is None else f" (SHA-256 {result.policy_digest.hex()[:16]}…)"
    return f"{plain(result.policy_id or 'none')}{digest}"


def utc(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def plain(text: str) -> str:
    """Show one line without what a terminal would obey: a policy's reasons may come in an auditor's file."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _same_line(check: Check) -> tuple[Outcome, str, str]:
    return check.outcome, check.detail, "" if check.outcome is Outcome.SKIP else check.id
