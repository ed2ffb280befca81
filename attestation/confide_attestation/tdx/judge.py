"""Judge a TDX quote for the composite appraisal."""

from confide_attestation.evidence import TdxEndorsements
from confide_attestation.part import Part
from confide_attestation.policy import SimulatedRoots
from confide_attestation.tdx.policy import TdxPolicy
from confide_attestation.tdx.verify import verify_tdx


def judge_tdx(
    quote: bytes,
    endorsements: TdxEndorsements | None,
    policy: TdxPolicy | None,
    simulated: SimulatedRoots | None,
    *,
    now_unix_s: int,
) -> Part:
    """Judge a quote; never raises, whatever the bytes."""
    result = verify_tdx(quote, b"" if endorsements is None else endorsements.collateral, now_unix_s=now_unix_s)
    return Part(result.checks, holds=False, claims=result.claims)
