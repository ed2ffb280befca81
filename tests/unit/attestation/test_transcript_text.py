"""The transcript: banner, one line a check, verdict."""

from confide_attestation.checks.ids import CheckId
from confide_attestation.transcript_text import SIMULATED_BANNER, render_transcript, verdict_line

from tests.fakes.scene import Scene


def test_transcript_has_banner_every_check_and_the_verdict() -> None:
    """Simulated hardware is said first and last."""
    lines = render_transcript(Scene().appraise()).splitlines()
    assert lines[0] == SIMULATED_BANNER
    assert len(lines) == 1 + 1 + len(CheckId) + 1
    assert [line.split()[1] for line in lines[2:-1]] == [c.value for c in CheckId]
    assert lines[-1].startswith("accepted (SIMULATED HARDWARE): ")


def test_refusal_names_what_failed() -> None:
    """The last line of a refusal lists the failed ids."""
    assert verdict_line(Scene(report={"vmpl": 1, "policy": 0xB0000}).appraise()) == "refused: debug, vmpl"
