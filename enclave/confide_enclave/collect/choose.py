"""From the platform that the settings name to the hardware behind it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from confide_attestation.evidence import CpuKind
from confide_protocol.errors import LocalStateError

from confide_enclave.attester import Quote
from confide_enclave.collect.attesters import (
    HardwareAttester,
    Machine,
    collect_azure_vm,
    collect_dstack,
    collect_snp,
    collect_tdx,
)
from confide_enclave.collect.device import Device
from confide_enclave.collect.nvml import GpuSource

_Collect = Callable[[Machine, bytes], Quote]


def _azure(kind: CpuKind) -> _Collect:
    return lambda machine, statement: collect_azure_vm(machine, kind, statement)


# By name: how its evidence is collected, and the device that is asked, one call at a time.
_PLATFORMS: Final[Mapping[str, tuple[_Collect, Callable[[Machine], object]]]] = {
    "sev-snp": (collect_snp, lambda machine: machine.tsm_root),
    "tdx": (collect_tdx, lambda machine: machine.tsm_root),
    "azure-sev-snp": (_azure(CpuKind.AZURE_SEV_SNP), lambda machine: machine.tpm),
    "azure-tdx": (_azure(CpuKind.AZURE_TDX), lambda machine: machine.tpm),
    "dstack": (collect_dstack, lambda machine: machine.dstack_socket),
}
PLATFORMS: Final = tuple(_PLATFORMS)


def choose_attester(platform: str, machine: Machine, gpus: GpuSource | None = None) -> HardwareAttester:
    """Return the attester of a platform by its name; `gpus` is None for a machine that runs without any."""
    if platform not in _PLATFORMS:
        raise LocalStateError(f"no hardware platform of this name; {', '.join(PLATFORMS)} are")
    collect, device = _PLATFORMS[platform]
    return HardwareAttester(
        platform=platform,
        device=Device(str(device(machine)), timeout_s=machine.timeout_s),
        collect=partial(collect, machine),
        gpu_source=gpus,
    )
