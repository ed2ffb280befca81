"""An auditor sees that an enclave answers EHBP too, and by which key: in the claims, and in what is not shown."""

from confide_attestation.result import AttestationResult, Verdict
from confide_attestation.transcript_text import limits

from tests.fakes.scene import Scene

KEY = b"\x07" * 32


def judged(**keyset: bytes) -> AttestationResult:
    result = Scene(keyset=dict(keyset)).appraise()
    assert result.verdict is Verdict.ACCEPTED
    return result


def test_the_key_stands_among_the_claims_of_the_keyset() -> None:
    """The key that evidence vouches for is shown; where there is none, nothing is."""
    on, off = judged(ehbp_key=KEY), judged()
    assert on.claims["keyset"]["ehbp_key"] == KEY.hex()
    assert "ehbp_key" not in off.claims["keyset"]


def test_what_clients_of_it_get_is_not_shown() -> None:
    """The result says so where it is answered, and only there."""
    on, off = limits(judged(ehbp_key=KEY)), limits(judged())
    assert [line for line in on if line not in off] == [line for line in on if "EHBP" in line] != []
