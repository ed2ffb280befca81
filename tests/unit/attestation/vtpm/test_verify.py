"""A machine against reference values: each switch, PCR and datum by itself."""

from dataclasses import replace

import pytest
from confide_attestation.checks.ledger import Ledger
from confide_attestation.vtpm.hcl import Runtime
from confide_attestation.vtpm.ids import MACHINE_CHECKS
from confide_attestation.vtpm.verify import MachineReference, check_machine

RUNTIME = Runtime(
    keys=(), secure_boot=True, console_enabled=False, tpm_enabled=True, vm_id="vm", user_data=b"\1" * 64
)
PCRS = {4: b"\4" * 32, 7: b"\7" * 32}
REFERENCE = MachineReference(
    {4: (b"\4" * 32, b"\5" * 32), 7: (b"\7" * 32,)}, secure_boot=True, console_allowed=False, user_data=b"\1" * 64
)


def failed(runtime: Runtime, pcrs: dict[int, bytes], reference: MachineReference) -> list[str]:
    ledger = Ledger()
    check_machine(ledger, runtime, pcrs, reference)
    return [check.id for check in ledger.close(MACHINE_CHECKS) if check.outcome != "PASS"]


def test_the_machine_that_is_meant_passes() -> None:
    """Each of several allowed values will do, and PCRs that nothing is demanded of may be any."""
    assert failed(RUNTIME, PCRS, REFERENCE) == []
    assert failed(RUNTIME, {**PCRS, 4: b"\5" * 32, 9: b"x" * 32}, REFERENCE) == []


@pytest.mark.parametrize(
    ("runtime", "pcrs", "reason"),
    [
        (RUNTIME, {4: PCRS[4]}, "pcr_missing"),
        (RUNTIME, {**PCRS, 7: bytes(32)}, "pcr_values"),
        (replace(RUNTIME, secure_boot=False), PCRS, "secure_boot"),
        (replace(RUNTIME, console_enabled=True), PCRS, "console_enabled"),
        (replace(RUNTIME, tpm_enabled=False), PCRS, "tpm_disabled"),
        (replace(RUNTIME, user_data=bytes(64)), PCRS, "user_data"),
    ],
)
def test_each_departure_has_its_reason(runtime: Runtime, pcrs: dict[int, bytes], reason: str) -> None:
    """One thing is wrong, and one check fails."""
    assert failed(runtime, pcrs, REFERENCE) == [reason]


def test_what_a_policy_allows_passes() -> None:
    """Secure boot off, a console and any user data can be allowed; a vTPM that is off cannot."""
    lax = MachineReference({}, secure_boot=False, console_allowed=True, user_data=None)
    machine = replace(RUNTIME, secure_boot=False, console_enabled=True)
    assert failed(machine, {}, lax) == []
    assert failed(replace(machine, tpm_enabled=False), {}, lax) == ["tpm_disabled"]
