"""A machine against a policy: each switch, PCR and datum by itself; and what a policy must pin."""

from dataclasses import replace
from typing import Any

import pytest
from confide_attestation.checks.ledger import Ledger
from confide_attestation.result import Outcome
from confide_attestation.vtpm.hcl import Runtime
from confide_attestation.vtpm.ids import MACHINE_CHECKS
from confide_attestation.vtpm.policy import COVERING, VtpmPolicy
from confide_attestation.vtpm.verify import check_machine
from pydantic import ValidationError

RUNTIME = Runtime(
    keys=(), secure_boot=True, console_enabled=False, tpm_enabled=True, vm_id="vm", user_data=b"\1" * 64
)
PCRS = {pcr: bytes([pcr]) * 32 for pcr in (*COVERING, 14)}
PINNED = {str(pcr): ["55" * 32, (bytes([pcr]) * 32).hex()] for pcr in COVERING}
STRICT = {"pcrs": PINNED, "secure_boot": "required", "console": "refused", "user_data": "01" * 64}
WAIVED = {"waived": "allowed by this test's policy"}


def failed(runtime: Runtime, pcrs: dict[int, bytes], **rules: Any) -> list[str]:
    ledger = Ledger()
    check_machine(ledger, runtime, pcrs, VtpmPolicy.model_validate({**STRICT, **rules}))
    assert ledger.holds(MACHINE_CHECKS) != ledger.failed(MACHINE_CHECKS)
    return [check.id for check in ledger.close(MACHINE_CHECKS) if check.outcome is Outcome.FAIL]


def test_the_machine_that_is_meant_passes() -> None:
    """Each of several pinned values will do, and PCRs that nothing is demanded of may be any."""
    assert failed(RUNTIME, PCRS) == []
    assert failed(RUNTIME, {**PCRS, 4: b"\x55" * 32, 14: b"x" * 32}) == []


@pytest.mark.parametrize(
    ("runtime", "pcrs", "reason"),
    [
        (RUNTIME, {pcr: value for pcr, value in PCRS.items() if pcr != 8}, "pcr_missing"),
        (RUNTIME, {**PCRS, 7: bytes(32)}, "pcr_values"),
        (replace(RUNTIME, secure_boot=False), PCRS, "secure_boot"),
        (replace(RUNTIME, console_enabled=True), PCRS, "console_enabled"),
        (replace(RUNTIME, tpm_enabled=False), PCRS, "tpm_disabled"),
        (replace(RUNTIME, user_data=bytes(64)), PCRS, "user_data"),
    ],
)
def test_each_departure_has_its_reason(runtime: Runtime, pcrs: dict[int, bytes], reason: str) -> None:
    """One thing is wrong, and one check fails."""
    assert failed(runtime, pcrs) == [reason]


def test_what_a_policy_waives_passes() -> None:
    """Secure boot off, a console and any user data can be allowed, with a reason; a vTPM that is off cannot."""
    lax = {"secure_boot": WAIVED, "console": WAIVED, "user_data": WAIVED}
    machine = replace(RUNTIME, secure_boot=False, console_enabled=True, user_data=bytes(64))
    assert failed(machine, PCRS, **lax) == []
    assert failed(replace(machine, tpm_enabled=False), PCRS, **lax) == ["tpm_disabled"]
    ledger = Ledger()
    check_machine(ledger, machine, PCRS, VtpmPolicy.model_validate({**STRICT, **lax}))
    assert {each.detail for each in ledger.close(MACHINE_CHECKS) if each.outcome is Outcome.SKIP} == {
        "waived by the policy: allowed by this test's policy"
    }


@pytest.mark.parametrize("absent", sorted(COVERING))
def test_a_policy_covers_what_the_machine_boots(absent: int) -> None:
    """Firmware, loader, keys, and kernel, initrd and command line, whichever loader measures them."""
    pcrs = {pcr: values for pcr, values in PINNED.items() if pcr != str(absent)}
    with pytest.raises(ValidationError, match=f"pin {absent} too, to zeros"):
        VtpmPolicy.model_validate({**STRICT, "pcrs": pcrs})


@pytest.mark.parametrize(
    "pcrs",
    [{**PINNED, "24": ["00" * 32]}, {**PINNED, "00": ["00" * 32]}, {**PINNED, "8": []}, {**PINNED, "8": ["00"]}],
)
def test_a_policy_names_real_registers_and_values(pcrs: dict[str, list[str]]) -> None:
    """0 to 23, each once and with at least one SHA-256 value."""
    with pytest.raises(ValidationError):
        VtpmPolicy.model_validate({**STRICT, "pcrs": pcrs})
