"""A simulated `pynvml`: the binding's names and structures over simulated devices, each answer mendable."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confide_attestation.nvidia.device import Arch
from confide_attestation.nvidia.evidence import DeviceEvidence
from confide_attestation.simulated.nvidia import SimulatedDevice

SETTINGS_VERSION = 0x1000014


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        self.value = value


class Settings(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint),
        ("environment", ctypes.c_uint),
        ("ccFeature", ctypes.c_uint),
        ("devToolsMode", ctypes.c_uint),
        ("multiGpuMode", ctypes.c_uint),
    )

    def __init__(self) -> None:
        super().__init__(version=SETTINGS_VERSION)


class State(ctypes.Structure):
    _fields_ = Settings._fields_[1:4]


class Memory(ctypes.Structure):
    _fields_ = (("protectedMemSizeKib", ctypes.c_ulonglong), ("unprotectedMemSizeKib", ctypes.c_ulonglong))


class Certificate(ctypes.Structure):
    _fields_ = (
        ("certChainSize", ctypes.c_uint),
        ("attestationCertChainSize", ctypes.c_uint),
        ("certChain", ctypes.c_uint8 * 0x1000),
        ("attestationCertChain", ctypes.c_uint8 * 0x1400),
    )


class Report(ctypes.Structure):
    _fields_ = (
        ("isCecAttestationReportPresent", ctypes.c_uint),
        ("attestationReportSize", ctypes.c_uint),
        ("cecAttestationReportSize", ctypes.c_uint),
        ("nonce", ctypes.c_uint8 * 32),
        ("attestationReport", ctypes.c_uint8 * 0x2000),
        ("cecAttestationReport", ctypes.c_uint8 * 0x1000),
    )


@dataclass
class FakeNvml:
    """`errors` are return codes by the name of the call; `bends` replace evidence that a device made."""

    devices: list[SimulatedDevice]
    environment: int = 2
    cc: int = 1
    devtools: int = 0
    multi_gpu: int = 0
    ready: int = 1
    protected_kib: int = 80 << 20
    driver: str = "550.90.07"
    vbios: str = "96.00.9F.00.01"
    architecture: int | None = None
    errors: dict[str, int] = field(default_factory=dict)
    bend: Callable[[DeviceEvidence], DeviceEvidence] = lambda evidence: evidence
    refuses_ready: bool = False
    open: int = 0
    calls: list[str] = field(default_factory=list)

    NVMLError = NVMLError
    NVML_CC_SYSTEM_FEATURE_ENABLED = 1
    NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF = 0
    c_nvmlSystemConfComputeSettings_v1_t = Settings

    def nvmlInit(self) -> None:
        self._call("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        self._call("nvmlSystemGetDriverVersion")
        return self.driver

    def nvmlSystemGetConfComputeSettings(self, pointer: Any) -> int:
        if "nvmlSystemGetConfComputeSettings" in self.errors:
            code = self.errors["nvmlSystemGetConfComputeSettings"]
            # A function that the library lacks is raised, any other code handed back.
            if code == 13:
                raise NVMLError(code)
            return code
        settings = pointer._obj
        assert settings.version == SETTINGS_VERSION
        settings.environment, settings.ccFeature = self.environment, self.cc
        settings.devToolsMode, settings.multiGpuMode = self.devtools, self.multi_gpu
        return 0

    def nvmlSystemGetConfComputeState(self) -> State:
        self._call("nvmlSystemGetConfComputeState")
        return State(self.environment, self.cc, self.devtools)

    def nvmlSystemGetConfComputeGpusReadyState(self) -> int:
        self._call("nvmlSystemGetConfComputeGpusReadyState")
        return self.ready

    def nvmlSystemSetConfComputeGpusReadyState(self, state: int) -> int:
        self._call("nvmlSystemSetConfComputeGpusReadyState")
        if not self.refuses_ready:
            self.ready = state
        return 0

    def nvmlDeviceGetCount(self) -> int:
        self._call("nvmlDeviceGetCount")
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> SimulatedDevice:
        self._call("nvmlDeviceGetHandleByIndex")
        return self.devices[index]

    def nvmlDeviceGetUUID(self, device: SimulatedDevice) -> bytes:
        return b"GPU-" + device.pdi.hex().encode()

    def nvmlDeviceGetVbiosVersion(self, device: SimulatedDevice) -> str:
        return self.vbios

    def nvmlDeviceGetArchitecture(self, device: SimulatedDevice) -> int:
        return self.architecture or {Arch.HOPPER: 9, Arch.BLACKWELL: 10}[device.arch]

    def nvmlDeviceGetConfComputeMemSizeInfo(self, device: SimulatedDevice) -> Memory:
        self._call("nvmlDeviceGetConfComputeMemSizeInfo")
        if not self.cc:
            raise NVMLError(3)
        return Memory(self.protected_kib, 0)

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, device: SimulatedDevice, nonce: bytes) -> Report:
        self._call("nvmlDeviceGetConfComputeGpuAttestationReport")
        if not self.cc:
            raise NVMLError(3)
        data = self.bend(device.evidence(nonce)).report
        answer = Report(attestationReportSize=len(data))
        ctypes.memmove(answer.attestationReport, data, min(len(data), 0x2000))
        return answer

    def nvmlDeviceGetConfComputeGpuCertificate(self, device: SimulatedDevice) -> Certificate:
        self._call("nvmlDeviceGetConfComputeGpuCertificate")
        chain = self.bend(device.evidence(bytes(32))).chain
        answer = Certificate(attestationCertChainSize=len(chain))
        ctypes.memmove(answer.attestationCertChain, chain, min(len(chain), 0x1400))
        return answer

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.errors:
            raise NVMLError(self.errors[name])
