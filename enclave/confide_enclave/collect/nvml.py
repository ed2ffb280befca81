"""GPUs through NVIDIA's management library: what state confidential computing is in, reports and certificates.

Source: NVIDIA, NVML API Reference, "Confidential Computing"; the structures of nvidia-ml-py 13.
Not collected: NVSwitches, whose reports only the NSCQ library gives. A machine in the mode that needs them
(protected PCIe, PPCIE) is refused by name.
"""

import ctypes
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Protocol

from confide_attestation.evidence import MAX_GPUS, GpuEvidence
from confide_attestation.nvidia.device import Arch

from confide_enclave.collect.device import Device
from confide_enclave.errors import DeviceUnavailable

NVML: Final = "NVML"
# One folder for each GPU that the driver holds.
DRIVER_GPUS: Final = Path("/proc/driver/nvidia/gpus")
NONCE_BYTES: Final = 32
READY: Final = 1
_ARCHITECTURES: Final = {9: Arch.HOPPER, 10: Arch.BLACKWELL}
# NVML's return codes and what a person can do about them.
_NOT_SUPPORTED, _NO_PERMISSION, _FUNCTION_NOT_FOUND = 3, 4, 13
_REMEDIES: Final = {
    1: "it was not initialised",
    _NOT_SUPPORTED: "the GPU or its driver cannot, or confidential computing is off: set CC mode on from the host",
    _NO_PERMISSION: "permission denied: run as root, or let root run nvidia-smi conf-compute -srs 1",
    9: "the driver is not loaded: modprobe nvidia",
    10: "the GPU gave no answer in time",
    12: "libnvidia-ml.so.1 is not there: install the driver, or mount it into this container",
    _FUNCTION_NOT_FOUND: "the driver is too old: 550 or later is needed",
    15: "the GPU fell off the bus: stop and start the machine",
    18: "library and driver are of different versions: restart after the update",
    27: "the GPU is not ready",
    29: "the GPU's state does not allow it: stop and start the machine",
}


class Environment(IntEnum):
    UNAVAILABLE = 0
    SIMULATION = 1
    PRODUCTION = 2


class MultiGpu(IntEnum):
    NONE = 0
    PPCIE = 1
    NVLE = 2


@dataclass(frozen=True)
class GpuState:
    """What the driver says of one GPU; the mode is the whole machine's. Believed because the driver is measured."""

    index: int
    uuid: str
    architecture: str
    driver_version: str
    vbios_version: str
    environment: Environment
    cc_on: bool
    devtools_on: bool
    multi_gpu: MultiGpu
    ready: bool
    protected_memory_kib: int


class GpuSource(Protocol):
    """Where GPUs are asked. Every method raises DeviceUnavailable."""

    async def states(self) -> tuple[GpuState, ...]: ...

    async def evidence(self, nonce: bytes) -> tuple[GpuEvidence, ...]: ...

    async def make_ready(self) -> None: ...


def mode_faults(states: Sequence[GpuState]) -> list[str]:
    """Name what is wrong with the GPUs' modes, and the remedy."""
    if not states:
        return ["the driver shows no GPU"]
    by_fault: dict[str, list[str]] = {}
    for state in states:
        for fault in _mode_faults(state):
            by_fault.setdefault(fault, []).append(str(state.index))
    return [f"GPU {', '.join(indices)} {fault}" for fault, indices in by_fault.items()]


def _mode_faults(state: GpuState) -> Iterator[str]:
    if state.multi_gpu is MultiGpu.PPCIE:
        yield "is in protected PCIe (PPCIE) mode, whose switches are not attested by this release; use NVLE mode"
    elif not state.cc_on:
        yield "has confidential computing off; set CC mode on from the host and start the machine anew"
    if state.devtools_on:
        yield "has DevTools mode on, which shows its memory; set CC mode to on"
    if state.cc_on and state.environment is not Environment.PRODUCTION:
        yield "is not in the production environment of confidential computing"
    if state.cc_on and state.protected_memory_kib == 0:
        yield "has no protected memory"


def load_pynvml() -> Any:  # noqa: ANN401 - a module without types
    """Import NVIDIA's binding when it is first needed. Raises: DeviceUnavailable."""
    try:
        module = importlib.import_module("pynvml")
    except ImportError:
        module = None
    if not hasattr(module, "nvmlSystemGetConfComputeSettings"):
        state = "not installed" if module is None else "too old, or another package of that name"
        raise DeviceUnavailable(f"{NVML}: the package nvidia-ml-py is {state}; pip install 'confide[gpu]'")
    return module


class NvmlGpus:
    """All GPUs that the driver holds, in NVML's order. Each call has its own thread and time limit."""

    def __init__(
        self,
        *,
        timeout_s: float,
        load: Callable[[], Any] = load_pynvml,
        driver_gpus: Path = DRIVER_GPUS,
    ) -> None:
        self._device = Device(NVML, timeout_s=timeout_s)
        self._load = load
        self._driver_gpus = driver_gpus

    async def states(self) -> tuple[GpuState, ...]:
        """Return the state of every GPU; a GPU that the driver holds and NVML does not show is an error."""
        return await self._device.call(self._states)

    async def evidence(self, nonce: bytes) -> tuple[GpuEvidence, ...]:
        """Ask every GPU for a report over a nonce of 32 bytes, and its certificate chain."""
        if len(nonce) != NONCE_BYTES:
            raise DeviceUnavailable(f"{NVML}: a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        count = await self._device.call(self._checked_count)

        def one(index: int) -> Callable[[], GpuEvidence]:
            return lambda: self._evidence(index, nonce)

        return tuple([await self._device.call(one(index)) for index in range(count)])

    async def make_ready(self) -> None:
        """Let the GPUs take work, which the driver refuses until somebody has appraised them."""
        await self._device.call(self._make_ready)

    def _states(self) -> tuple[GpuState, ...]:
        with self._session() as nvml:
            settings = _settings(nvml)
            # Asked without confidential computing, the driver only says that it is not supported.
            cc_on = settings.ccFeature == nvml.NVML_CC_SYSTEM_FEATURE_ENABLED
            common = {
                "driver_version": _text(nvml.nvmlSystemGetDriverVersion()),
                "environment": _known(Environment, settings.environment),
                "cc_on": cc_on,
                # An unknown value counts as on.
                "devtools_on": settings.devToolsMode != nvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF,
                "multi_gpu": _known(MultiGpu, getattr(settings, "multiGpuMode", MultiGpu.NONE)),
                "ready": cc_on and nvml.nvmlSystemGetConfComputeGpusReadyState() == READY,
            }
            return tuple(_state(nvml, index, common) for index in range(self._count(nvml)))

    def _checked_count(self) -> int:
        """Return how many GPUs there are; a mode that changed since the enclave's own check ends all evidence."""
        states = self._states()
        if faults := mode_faults(states):
            raise DeviceUnavailable(f"{NVML}: {'; '.join(faults)}")
        return len(states)

    def _count(self, nvml: Any) -> int:  # noqa: ANN401
        count: int = nvml.nvmlDeviceGetCount()
        held = len(list(self._driver_gpus.iterdir())) if self._driver_gpus.is_dir() else count
        if count != held:
            raise DeviceUnavailable(
                f"{NVML}: shows {count} GPUs, {self._driver_gpus} {held}; run as a user that sees all"
            )
        if not 1 <= count <= MAX_GPUS:
            raise DeviceUnavailable(f"{NVML}: shows {count} GPUs; 1 to {MAX_GPUS} can be attested")
        return count

    def _evidence(self, index: int, nonce: bytes) -> GpuEvidence:
        with self._session(f"{NVML} GPU {index}") as nvml:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            architecture = _architecture(nvml.nvmlDeviceGetArchitecture(handle), index)
            answer = nvml.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
            report = _sized(answer.attestationReport, answer.attestationReportSize, index)
            certificate = nvml.nvmlDeviceGetConfComputeGpuCertificate(handle)
            chain = _sized(certificate.attestationCertChain, certificate.attestationCertChainSize, index)
        # SPDM: the request lies before the answer, and the nonce at byte 4 of it.
        if report[4 : 4 + NONCE_BYTES] != nonce:
            raise DeviceUnavailable(f"{NVML} GPU {index}: its report answers another nonce")
        return GpuEvidence(architecture, report, chain.rstrip(b"\0"))

    def _make_ready(self) -> None:
        with self._session() as nvml:
            nvml.nvmlSystemSetConfComputeGpusReadyState(READY)
            if nvml.nvmlSystemGetConfComputeGpusReadyState() != READY:
                raise DeviceUnavailable(f"{NVML}: the GPUs did not become ready; stop and start the machine")

    @contextmanager
    def _session(self, what: str = NVML) -> Iterator[Any]:
        nvml = self._load()
        try:
            nvml.nvmlInit()
            try:
                yield nvml
            finally:
                nvml.nvmlShutdown()
        except nvml.NVMLError as fault:
            code = getattr(fault, "value", -1)
            remedy = _REMEDIES.get(code, "stop and start the machine if it stays so")
            raise DeviceUnavailable(f"{what}: NVML error {code}; {remedy}") from None


def _state(nvml: Any, index: int, common: dict[str, Any]) -> GpuState:  # noqa: ANN401
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetConfComputeMemSizeInfo(handle).protectedMemSizeKib if common["cc_on"] else 0
    return GpuState(
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        architecture=_architecture(nvml.nvmlDeviceGetArchitecture(handle), index),
        vbios_version=_text(nvml.nvmlDeviceGetVbiosVersion(handle)),
        protected_memory_kib=memory,
        **common,
    )


def _settings(nvml: Any) -> Any:  # noqa: ANN401
    """Return the mode of the machine; a driver that is too old to know of multi-GPU modes has none."""
    settings = nvml.c_nvmlSystemConfComputeSettings_v1_t()
    try:
        code = nvml.nvmlSystemGetConfComputeSettings(ctypes.byref(settings))
    except nvml.NVMLError as fault:
        code = fault.value
    if code == _FUNCTION_NOT_FOUND:
        return nvml.nvmlSystemGetConfComputeState()
    # The binding hands this call's code back instead of raising it.
    if code:
        raise nvml.NVMLError(code)
    return settings


def _architecture(number: int, index: int) -> str:
    if number not in _ARCHITECTURES:
        raise DeviceUnavailable(f"{NVML} GPU {index}: its architecture ({number}) has no attestation known here")
    return _ARCHITECTURES[number].value


def _known(kind: type[IntEnum], value: int) -> IntEnum:
    if value not in set(kind):
        raise DeviceUnavailable(f"{NVML}: {kind.__name__} {value} is unknown to this release")
    return kind(value)


def _sized(data: Any, size: int, index: int) -> bytes:  # noqa: ANN401 - an array of ctypes
    if not 0 < size <= len(data):
        raise DeviceUnavailable(f"{NVML} GPU {index}: gave {size} bytes in a place of {len(data)}")
    return bytes(data[:size])


def _text(value: str | bytes) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
