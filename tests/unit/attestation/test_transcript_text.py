"""The transcript: banner, one line a check, verdict."""

import re
from dataclasses import replace

from confide_attestation.result import Check, Outcome, Verdict
from confide_attestation.transcript_text import SIMULATED_BANNER, limits, render_transcript, verdict_line

from tests.fakes.scene import NOW, Scene

LINE = re.compile(r"(?:PASS|FAIL|SKIP) ((?:\w+, )*\w+) — .*")


def test_transcript_has_banner_every_check_and_the_verdict() -> None:
    """Simulated hardware is said first and last; every check of the result stands in it once, under its topic."""
    result = Scene().appraise()
    lines = render_transcript(result).splitlines()
    assert lines[0] == SIMULATED_BANNER
    assert lines[-1].startswith("accepted (SIMULATED HARDWARE): ")
    ids = [name for line in lines if (found := LINE.fullmatch(line)) for name in found[1].split(", ")]
    assert ids == [check.id for check in result.checks]
    assert [line for line in lines if line.endswith(":")] == [
        "The policy:",
        "CPU: AMD SEV-SNP:",
        "From the hardware to the keyset:",
    ]


def test_skipped_checks_of_one_reason_share_a_line() -> None:
    """What failed or passed always has a line of its own."""
    checks = tuple(Check(name, outcome, "why") for outcome in Outcome for name in ("mr_td", "rtmr0"))
    text = render_transcript(replace(Scene().appraise(), checks=checks))
    for line in ("PASS mr_td — why", "PASS rtmr0 — why", "FAIL mr_td — why", "SKIP mr_td, rtmr0 — why"):
        assert line in text.splitlines()


def test_what_is_not_shown_is_said_of_what_holds_alone() -> None:
    """A refusal shows nothing; authenticity alone shows no software, freshness or keyset."""
    result = Scene().appraise()
    assert [limit.split()[:4] for limit in limits(result)] == [
        ["that", "nothing", "was", "revoked:"],
        ["that", "the", "software", "has"],
    ]
    alone = replace(result, verdict=Verdict.AUTHENTIC, keyset=None, checks=(Check("report_sig", Outcome.PASS, ""),))
    said = render_transcript(alone, ("what a note says",))
    for words in ("no policy was given", "any keyset", "no nonce was compared", "what a note says"):
        assert f"{words}" in said
    assert limits(replace(result, verdict=Verdict.REFUSED)) == ()


def test_what_ends_first_is_said_with_the_time_left() -> None:
    """Days, then minutes; what has ended is said too, and so is the document."""
    result = replace(Scene().appraise(), keyset=None)
    for seconds, words in (
        (3 * 86_400, "3 days left"),
        (120, "2 minutes left"),
        (-2 * 86_400, "ended 2 days before"),
    ):
        ends = {"tcb_info_next_update": NOW + seconds, "qe_identity_next_update": NOW + 9 * 86_400}
        line = next(
            each
            for each in render_transcript(replace(result, claims={"cpu0": ends})).splitlines()
            if "ends" in each
        )
        assert line.startswith("ends first: cpu0: tcb_info_next_update, ")
        assert words in line


def test_a_detail_cannot_forge_lines() -> None:
    """A waiver's reason may stand in a file that somebody else made: one line, no control characters."""
    result = Scene().appraise()
    forged = Check("smt", Outcome.SKIP, "waived\x1b[2J\n*** all holds\u2028\u202e")
    refused = replace(result, checks=(forged,), verdict=Verdict.REFUSED, policy_id="a\nPASS b", keyset=None)
    text = render_transcript(replace(refused, claims={}))
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.split("\n")) == 4


def test_refusal_names_what_failed() -> None:
    """The last line of a refusal lists the failed ids."""
    assert verdict_line(Scene(report={"vmpl": 1, "policy": 0xB0000}).appraise()) == "refused: debug, vmpl"
