"""The transcript: banner, one line a check, verdict."""

from dataclasses import replace

from confide_attestation.checks.ids import CheckId
from confide_attestation.result import Check, Outcome
from confide_attestation.transcript_text import SIMULATED_BANNER, render_transcript, verdict_line

from tests.fakes.scene import Scene


def test_transcript_has_banner_every_check_and_the_verdict() -> None:
    """Simulated hardware is said first and last."""
    lines = render_transcript(Scene().appraise()).splitlines()
    assert lines[0] == SIMULATED_BANNER
    assert len(lines) == 1 + 1 + len(CheckId) + 1
    assert [line.split()[1] for line in lines[2:-1]] == [c.value for c in CheckId]
    assert lines[-1].startswith("accepted (SIMULATED HARDWARE): ")


def test_a_detail_cannot_forge_lines() -> None:
    """A waiver's reason may stand in a file that somebody else made: one line, no control characters."""
    result = Scene().appraise()
    forged = Check("smt", Outcome.SKIP, "waived\x1b[2J\n*** all holds\u2028\u202e")
    text = render_transcript(replace(result, checks=(forged,)))
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.split("\n")) == 4


def test_refusal_names_what_failed() -> None:
    """The last line of a refusal lists the failed ids."""
    assert verdict_line(Scene(report={"vmpl": 1, "policy": 0xB0000}).appraise()) == "refused: debug, vmpl"
