"""Judge devices' claims against a policy; does not check any signature (`judge`)."""

from collections.abc import Sequence

from confide_attestation.checks.ledger import Ledger
from confide_attestation.checks.pins import check_pinned
from confide_attestation.nvidia.device import DeviceFields
from confide_attestation.nvidia.ids import COUNT_CHECKS, NvidiaCheck
from confide_attestation.nvidia.policy import GpuPolicy


def check_counts(ledger: Ledger, policy: GpuPolicy, switches: Sequence[bool]) -> None:
    """Judge how many devices there are; `switches` says of each whether it is one, by its certificates' names."""
    for check_id, what, found, wanted in zip(
        COUNT_CHECKS,
        ("GPUs", "switches"),
        (switches.count(False), switches.count(True)),
        (policy.gpus, policy.switches),
        strict=True,
    ):
        ledger.expect(
            check_id,
            found == wanted,
            f"{found} {what}, as the policy demands",
            f"evidence of {found} {what}, and the policy demands {wanted}",
        )


def check_device(ledger: Ledger, fields: DeviceFields, ueid: str, policy: GpuPolicy) -> None:
    """Judge one device's architecture, mode, driver, firmware and identity."""
    if fields.driver is not None:
        mode = fields.mode or "none named"
        for check_id, holds, passed, failed in (
            (
                NvidiaCheck.ARCH_DENIED,
                fields.arch.value in policy.architectures,
                f"{fields.arch} is accepted",
                f"{fields.arch} is not accepted",
            ),
            (
                NvidiaCheck.MODE_DENIED,
                fields.mode in policy.modes,
                f"mode {mode} is accepted",
                f"mode {mode} is not accepted, {', '.join(policy.modes)} is",
            ),
            (
                NvidiaCheck.MIN_DRIVER,
                numbers(fields.driver) >= numbers(policy.min_driver),
                f"driver {fields.driver} is at least {policy.min_driver}",
                f"driver {fields.driver} is below {policy.min_driver}; update the machine's driver",
            ),
        ):
            ledger.expect(check_id, holds, passed, failed)
    check_pinned(ledger, NvidiaCheck.FIRMWARE, fields.firmware, policy.firmware)
    check_pinned(ledger, NvidiaCheck.UEID, ueid, policy.ueids)


def numbers(version: str) -> tuple[int, ...]:
    """Read a driver's version to compare it; one with a part that is no number is below all others."""
    parts = version.split(".")
    readable = all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts)
    return tuple(map(int, parts)) if readable else ()
