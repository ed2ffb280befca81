"""Fuzz the readers of TDX quotes and of Intel's documents, and the whole judgement past its parsers."""

from collections.abc import Callable

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import TdxEndorsements
from confide_attestation.result import Verdict
from confide_attestation.tdx.abi import BodyType, parse_quote
from confide_attestation.tdx.collateral import parse_collateral
from confide_attestation.tdx.ids import TDX_CHECKS
from confide_attestation.tdx.judge import judge_tdx, verify_tdx

from tests.fakes.scene import NOW
from tests.fakes.tdx_scene import TdxScene, genuine

INTEL = genuine()
QUOTE, COLLATERAL = INTEL.sign_quote(bytes(64), **TdxScene().registers), INTEL.collateral()
_, _, POLICY = TdxScene().build()


def quote(data: bytes) -> None:
    try:
        parsed = parse_quote(data)
    except EvidenceMalformed:
        return
    assert data.startswith(parsed.data)
    assert not any(data[len(parsed.data) :])


def collateral(data: bytes) -> None:
    try:
        parse_collateral(data)
    except EvidenceMalformed:
        return


def judged(data: bytes) -> None:
    """The input is a quote or its collateral, the other is genuine. Nothing raises, no other quote passes."""
    if not data:
        return
    given = (data[1:], COLLATERAL) if data[0] & 1 else (QUOTE, data[1:])
    result = verify_tdx(*given, now_unix_s=NOW, root_der=INTEL.root)
    if result.verdict is Verdict.AUTHENTIC and data[0] & 1:
        assert data[1:].rstrip(b"\0") == QUOTE.rstrip(b"\0")


def appraised(data: bytes) -> None:
    """As above, under a policy; what does not hold is never claimed as bound."""
    if not data:
        return
    quote, documents = (data[1:], COLLATERAL) if data[0] & 1 else (QUOTE, data[1:])
    part = judge_tdx(quote, TdxEndorsements(documents), POLICY.tdx, POLICY.roots, now_unix_s=NOW)
    assert [check.id for check in part.checks] == [*TDX_CHECKS]
    assert not part.holds or part.bound is not None
    if part.bound is not None:
        assert part.bound == bytes(64)
        assert quote.rstrip(b"\0") == QUOTE.rstrip(b"\0")


def seeds() -> dict[str, list[bytes]]:
    later = INTEL.sign_quote(bytes(64), body_type=BodyType.TD15)
    return {
        "tdx_quote": [QUOTE, later],
        "tdx_collateral": [COLLATERAL],
        "tdx_judged": [b"\1" + QUOTE, b"\0" + COLLATERAL],
        "tdx_appraised": [b"\1" + QUOTE, b"\0" + COLLATERAL],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tdx_quote": quote,
    "tdx_collateral": collateral,
    "tdx_judged": judged,
    "tdx_appraised": appraised,
}
