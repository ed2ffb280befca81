"""The policy itself: not expired, not rolled back, and simulated hardware only where the caller allows it too."""

from confide_attestation.checks.ids import CheckId
from confide_attestation.checks.ledger import Ledger
from confide_attestation.policy import AppraisalPolicy


def check_policy(
    ledger: Ledger, policy: AppraisalPolicy, *, now_unix_s: int, floor: int, allow_simulated: bool
) -> None:
    """Judge a policy before what it demands; `floor` is the least serial that the caller still accepts."""
    ends, serial = f"{policy.not_after:%Y-%m-%d}", policy.serial
    in_time, allowed = now_unix_s < policy.not_after_unix_s, policy.kind == "hardware" or allow_simulated
    demand = (
        "real hardware is demanded"
        if policy.kind == "hardware"
        else "SIMULATED hardware is allowed by policy and caller"
    )
    forbidden = "the policy is of kind simulated, and the caller did not allow simulated hardware"
    for check_id, holds, passed, failed in (
        (CheckId.POLICY_EXPIRED, in_time, f"{policy.id} is good until {ends}", f"{policy.id} expired on {ends}"),
        (
            CheckId.POLICY_SERIAL,
            policy.serial >= floor,
            f"{serial}, at least {floor}",
            f"{serial} is below {floor}",
        ),
        (CheckId.SIMULATED, allowed, demand, forbidden),
    ):
        ledger.expect(check_id, holds, passed, failed)
