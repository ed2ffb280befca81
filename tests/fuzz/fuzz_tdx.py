"""Fuzz the readers of TDX quotes and of Intel's documents, and the whole judgement past its parsers."""

from collections.abc import Callable

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.result import Verdict
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.tdx.abi import BodyType, parse_quote
from confide_attestation.tdx.collateral import parse_collateral
from confide_attestation.tdx.judge import verify_tdx

NOW = 1_780_000_000
INTEL = SimulatedIntel.make(NOW)
QUOTE, COLLATERAL = INTEL.sign_quote(bytes(64)), INTEL.collateral()


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


def seeds() -> dict[str, list[bytes]]:
    later = INTEL.sign_quote(bytes(64), body_type=BodyType.TD15)
    return {
        "tdx_quote": [QUOTE, later],
        "tdx_collateral": [COLLATERAL],
        "tdx_judged": [b"\1" + QUOTE, b"\0" + COLLATERAL],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tdx_quote": quote,
    "tdx_collateral": collateral,
    "tdx_judged": judged,
}
