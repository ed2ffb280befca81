"""Render a result as the text that people read: CLI, demo and logs show the same lines."""

from datetime import UTC, datetime

from confide_attestation.result import AttestationResult, Outcome, Verdict

SIMULATED_BANNER = "*** SIMULATED HARDWARE *** this proves nothing about any real machine ***"


def render_transcript(result: AttestationResult) -> str:
    """Return one line a check, then the verdict; under a banner if the hardware is simulated."""
    at = datetime.fromtimestamp(result.judged_at_unix_s, UTC)
    digest = "" if result.policy_digest is None else f" (SHA-256 {result.policy_digest.hex()[:16]}…)"
    lines = [SIMULATED_BANNER] if result.simulated else []
    lines.append(f"policy: {result.policy_id or 'none'}{digest}; judged as of {at:%Y-%m-%d %H:%M:%S} UTC")
    lines += [f"{check.outcome} {check.id} — {_plain(check.detail)}" for check in result.checks]
    lines.append(verdict_line(result))
    return "\n".join(lines)


def _plain(detail: str) -> str:
    """Show one line without what a terminal would obey: a policy's reasons may come in an auditor's file."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in detail)


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
