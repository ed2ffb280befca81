"""One simulated Intel platform whose quotes and documents tests bend; keys are made once."""

from functools import cache
from typing import Any

from confide_attestation.result import AttestationResult, Outcome
from confide_attestation.simulated.intel import SimulatedIntel, SimulatedKeys
from confide_attestation.tdx.judge import verify_tdx

NOW = 1_780_000_000
REPORT_DATA = bytes(range(64))


@cache
def keys() -> SimulatedKeys:
    return SimulatedKeys.generate()


@cache
def intel() -> SimulatedIntel:
    return SimulatedIntel.make(NOW, keys=keys())


@cache
def genuine() -> tuple[bytes, bytes]:
    return intel().sign_quote(REPORT_DATA), intel().collateral()


def judge(quote: bytes | None = None, collateral: bytes | None = None, *, now: int = NOW) -> AttestationResult:
    """Judge under the simulated root; what is not given is genuine."""
    good = genuine()
    return verify_tdx(
        good[0] if quote is None else quote,
        good[1] if collateral is None else collateral,
        now_unix_s=now,
        root_der=intel().root,
    )


def failed(*args: Any, **fields: Any) -> list[str]:
    return [check.id for check in judge(*args, **fields).failed]


def outcome(result: AttestationResult, check_id: str) -> Outcome:
    (found,) = (check.outcome for check in result.checks if check.id == check_id)
    return found


def detail(result: AttestationResult, check_id: str) -> str:
    (found,) = (check.detail for check in result.checks if check.id == check_id)
    return found


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
