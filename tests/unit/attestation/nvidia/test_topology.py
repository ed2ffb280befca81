"""Devices together: each once, of one kind and mode, wired as their certificates name them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from confide_attestation.nvidia.device import DISABLED, ENABLED, Arch
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.nvidia.spdm import Opaque
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor, new_key

NONCE = b"\x4e" * 32
PPCIE = b"\x02\0"
Patched = tuple[SimulatedDevice, dict[int, bytes | None]]


class Machine:
    """Eight GPUs and four switches that name one another."""

    def __init__(self, vendor: SimulatedVendor) -> None:
        self.gpus = [SimulatedDevice(vendor, pdi=bytes([0xA0 + n]) * 8) for n in range(8)]
        self.switches = [SimulatedDevice(vendor, arch=Arch.LS10, pdi=bytes([0xB0 + n]) * 8) for n in range(4)]
        self.rims = (*self.gpus[0].rims, *self.switches[0].rims)

    def devices(self, mode: bytes = PPCIE) -> list[Patched]:
        to_switches = b"".join(each.pdi[::-1] for each in self.switches) + bytes(8)
        to_gpus = b"".join(each.pdi for each in self.gpus) + b"\xff" * 64
        protected = ENABLED if mode == PPCIE else DISABLED
        said = {Opaque.FEATURE_FLAG: mode, Opaque.PROTECTED_PCIE_STATUS: protected, Opaque.SWITCH_PDI: to_switches}
        wired: list[Patched] = [(each, {**said}) for each in self.gpus]
        return wired + [(each, {Opaque.SWITCH_GPU_PDIS: to_gpus}) for each in self.switches]


@pytest.fixture(scope="module")
def machine(vendor: SimulatedVendor) -> Machine:
    return Machine(vendor)


def judge(machine: Machine, devices: Sequence[Patched]) -> AttestationResult:
    vendor = machine.gpus[0].vendor
    evidence = [device.evidence(NONCE, opaque) for device, opaque in devices]
    given = NvidiaEndorsements(machine.rims)
    return verify_nvidia(evidence, given, now_unix_s=vendor.now_unix_s, nonce=NONCE, roots=vendor.roots)


def failed(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


def test_whole_machine_is_authentic(machine: Machine) -> None:
    """Claims of each device, and one check for all of a kind."""
    result = judge(machine, machine.devices())
    assert result.verdict is Verdict.AUTHENTIC
    assert list(result.claims) == [*(f"gpu{n}" for n in range(8)), *(f"switch{n}" for n in range(4))]
    assert {check.id: check.outcome for check in result.checks}["topology"] is Outcome.PASS
    assert len({check.id for check in result.checks}) == len(result.checks)


def test_wrong_wiring_is_refused(machine: Machine) -> None:
    """Too few, unlocked, in another mode, wired elsewhere, or naming itself wrongly."""
    good = machine.devices()
    gpu, switch = good[0], good[8]
    for devices in (
        good[1:],
        good[:-1],
        machine.devices(mode=b"\0\0"),
        [*good[:8], (switch[0], {**switch[1], Opaque.LOCK_SWITCH_STATUS: b"\0\0"}), *good[9:]],
        [*good[:8], (switch[0], {**switch[1], Opaque.SWITCH_PDI: b"\x11" * 8}), *good[9:]],
        [*good[:8], (switch[0], {**switch[1], Opaque.SWITCH_GPU_PDIS: b"\x11" * 128}), *good[9:]],
        [(gpu[0], {**gpu[1], Opaque.SWITCH_PDI: b"\x11" * 8}), *good[1:]],
    ):
        assert failed(judge(machine, devices)) == ["topology"]


def test_device_twice_is_refused(machine: Machine) -> None:
    """The same report again, and the same chip with another leaf."""
    one, *rest = machine.devices()[:3]
    assert failed(judge(machine, [one, *rest, one])) == ["duplicate_device"]
    twin = SimulatedDevice(one[0].vendor, pdi=one[0].pdi)
    assert failed(judge(machine, [one, (twin, one[1])])) == ["duplicate_device"]


def test_a_chip_without_a_pdi_is_known_by_its_key(vendor: SimulatedVendor, machine: Machine) -> None:
    """One boot ROM under which two firmware leaves stand is one GPU."""
    chip = SimulatedDevice(vendor, pdi=b"")
    again = replace(chip, leaf_key=new_key())
    assert failed(judge(machine, [(chip, {}), (again, {})])) == ["duplicate_device"]
    assert failed(judge(machine, [(chip, {}), (SimulatedDevice(vendor, pdi=b""), {})])) == []


def test_mixed_architectures_and_modes_are_refused(machine: Machine, vendor: SimulatedVendor) -> None:
    """GPUs of two chips, and of two modes."""
    one, two = machine.devices()[:2]
    assert failed(judge(machine, [one, (two[0], {Opaque.FEATURE_FLAG: b"\x01\0"})])) == ["mixed_mode"]
    blackwell = SimulatedDevice(vendor, arch=Arch.BLACKWELL, pdi=b"\xcc" * 8)
    assert "mixed_arch" in failed(judge(machine, [(machine.gpus[0], {}), (blackwell, {})]))


def test_one_bad_device_spoils_all_and_is_named(machine: Machine) -> None:
    """The check fails for all, and its detail says whose it is."""
    one, two, three = machine.devices()[:3]
    result = judge(machine, [one, (two[0], {**two[1], Opaque.FWID: bytes(48)}), three])
    assert failed(result) == ["fwid"]
    assert result.failed[0].detail.startswith("gpu1: ")
