"""Judge devices together: each once, of one kind and mode, and wired to one another as they say.

Source: NVIDIA/nvtrust `ppcie-verifier` (validate_topology), measured on the recorded 8 GPUs and 4 switches.
Does not check: that these are all the devices of a machine, or belong to it (the CPU's evidence binds them).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from confide_attestation.checks.ledger import Ledger
from confide_attestation.nvidia.device import NO_PDI, DeviceFields
from confide_attestation.nvidia.ids import SET_CHECKS, NvidiaCheck

PPCIE_GPUS = 8
PPCIE_SWITCHES = 4
NO_DEVICE = "there is no evidence of a device"
_UNUSED = {NO_PDI, b"\xff" * len(NO_PDI)}


@dataclass(frozen=True)
class Member:
    """An authenticated device, with serial number, chip and chip's key of its certificates; no two share any."""

    name: str
    ueid: str
    pdi: bytes | None
    chip_key: bytes
    fields: DeviceFields


def check_set(ledger: Ledger, members: Sequence[Member], expected: int, *, whole: bool) -> None:
    """Judge devices together, if all `expected` ones were authenticated.

    `whole`: these should be all devices of a machine, so GPUs in protected-PCIe mode need their switches.
    """
    if len(members) < expected or not members:
        for check_id in SET_CHECKS:
            ledger.skip(check_id, "not reached: a device is not authentic" if expected else NO_DEVICE)
        return
    gpus = [each for each in members if not each.fields.is_switch]
    switches = [each for each in members if each.fields.is_switch]
    seen: dict[object, str] = {}
    twice = [
        f"{each.name} is {seen[identity]}"
        for each in members
        for identity in (each.ueid, each.pdi, each.chip_key)
        if identity is not None and seen.setdefault(identity, each.name) != each.name
    ]
    count = f"{len(gpus)} GPUs and {len(switches)} switches, each once" if expected > 1 else "one device"
    ledger.expect(NvidiaCheck.DUPLICATE_DEVICE, not twice, count, "; ".join(dict.fromkeys(twice)))
    chips = sorted({each.fields.chip for each in gpus})
    ledger.expect(
        NvidiaCheck.MIXED_ARCH,
        len(chips) <= 1,
        f"all GPUs are {chips[0]}" if chips else "no GPU",
        f"GPUs of different architectures: {', '.join(chips)}",
    )
    modes = {each.fields.mode or "" for each in gpus}
    ledger.expect(
        NvidiaCheck.MIXED_MODE,
        len(modes) <= 1 and "unknown" not in modes,
        f"mode: {next(iter(modes), '') or 'none named'}",
        f"GPUs in different or unknown modes: {', '.join(sorted(mode or 'none named' for mode in modes))}",
    )
    protected = any(each.fields.mode == "PPCIE" for each in gpus)
    if gpus and (switches or (protected and whole)):
        faults = topology_faults(gpus, switches)
        ledger.expect(
            NvidiaCheck.TOPOLOGY,
            not faults,
            f"{len(gpus)} GPUs and {len(switches)} switches name one another",
            "; ".join(faults),
        )
    elif gpus and not protected:
        ledger.expect(NvidiaCheck.TOPOLOGY, True, "no GPU relies on switches", "")
    else:
        ledger.skip(NvidiaCheck.TOPOLOGY, "there are not both GPUs and switches in the evidence")


def topology_faults(gpus: Sequence[Member], switches: Sequence[Member]) -> list[str]:
    """Name what speaks against these GPUs and switches being one protected-PCIe machine, complete."""
    faults = []
    if len(gpus) != PPCIE_GPUS or len(switches) != PPCIE_SWITCHES:
        faults.append(f"{len(gpus)} GPUs and {len(switches)} switches, not {PPCIE_GPUS} and {PPCIE_SWITCHES}")
    faults += [f"{each.name} is not in PPCIE mode" for each in gpus if each.fields.mode != "PPCIE"]
    faults += [f"{each.name} is not locked" for each in switches if not each.fields.locked]
    faults += [
        f"{each.name} does not name itself as its certificates do"
        for each in switches
        if each.pdi is None or each.fields.switch_pdis != (each.pdi,)
    ]
    own, certified = {each.pdi for each in switches}, {each.pdi for each in gpus}
    faults += [
        f"{each.name} is wired to other switches" for each in gpus if set(each.fields.switch_pdis) - _UNUSED != own
    ]
    faults += [
        f"{each.name} is wired to other GPUs"
        for each in switches
        if set(each.fields.gpu_pdis) - _UNUSED != certified
    ]
    return faults
