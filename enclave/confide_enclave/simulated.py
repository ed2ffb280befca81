"""Ask the `confide-sim` process for evidence of SIMULATED hardware; the enclave never holds its keys."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any, Final

from confide_attestation.evidence import MAX_GPUS, CpuEvidence, CpuKind, GpuEvidence
from confide_protocol import cbor
from confide_protocol.errors import Malformed

from confide_enclave.attester import Quote
from confide_enclave.collect.nvml import Environment, GpuState, MultiGpu
from confide_enclave.errors import DeviceUnavailable
from confide_enclave.settings import SIMULATED

MAX_REPLY_BYTES: Final = 1 << 20
_STATE: Final = {
    "index": int,
    "uuid": str,
    "architecture": str,
    "driver_version": str,
    "vbios_version": str,
    "environment": int,
    "cc_on": bool,
    "devtools_on": bool,
    "multi_gpu": int,
    "ready": bool,
    "protected_memory_kib": int,
}


@dataclass(frozen=True)
class SimulatedAttester:
    """One simulated machine behind a unix socket: length-prefixed CBOR out, length-prefixed CBOR back."""

    socket_path: str
    timeout_s: float
    platform: str = "simulated-sev-snp"
    with_gpus: bool = False
    simulated: bool = True

    async def gpus(self, nonce: bytes) -> tuple[GpuEvidence, ...]:
        """Have every GPU sign 32 bytes; none where the platform is run without. Raises: DeviceUnavailable."""
        return await self.evidence(nonce) if self.with_gpus else ()

    async def quote(self, statement: bytes) -> Quote:
        """Have the CPU sign a statement. Raises: DeviceUnavailable. Does not check: what was signed."""
        cpu = parse_cpu(await self._ask({"report_data": hashlib.sha512(statement).digest()}))
        if SIMULATED + cpu.kind != self.platform:
            raise DeviceUnavailable(f"the device simulates {cpu.kind}, and the platform is {self.platform}")
        return Quote(cpu)

    async def states(self) -> tuple[GpuState, ...]:
        """Return what NVML would say of each GPU. Raises: DeviceUnavailable."""
        return parse_states(await self._ask({"gpu_states": True}))

    async def evidence(self, nonce: bytes) -> tuple[GpuEvidence, ...]:
        """Have every GPU sign 32 bytes. Raises: DeviceUnavailable. Does not check: what was signed."""
        return parse_gpus(await self._ask({"gpu_nonce": nonce}))

    async def make_ready(self) -> None:
        """Do nothing: simulated GPUs are ready."""

    async def _ask(self, request: dict[str, Any]) -> bytes:
        asked = cbor.encode(request)
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await asyncio.open_unix_connection(self.socket_path)
                try:
                    writer.write(len(asked).to_bytes(4) + asked)
                    await writer.drain()
                    length = int.from_bytes(await reader.readexactly(4))
                    if length > MAX_REPLY_BYTES:
                        raise DeviceUnavailable("the simulated device's reply is too large")
                    return await reader.readexactly(length)
                finally:
                    writer.close()
        except (OSError, EOFError, TimeoutError) as fault:
            raise DeviceUnavailable(f"the simulated device gave no answer ({type(fault).__name__})") from None


def parse_cpu(reply: bytes) -> CpuEvidence:
    """Read a CPU's answer. Raises: DeviceUnavailable. Does not check: the report."""
    match _decode(reply):
        case {"kind": "sev-snp" | "tdx" as kind, "report": bytes(report), **more} if not more:
            return CpuEvidence(CpuKind(kind), report)
    raise _malformed()


def parse_gpus(reply: bytes) -> tuple[GpuEvidence, ...]:
    """Read the GPUs' evidence. Raises: DeviceUnavailable. Does not check: any report."""
    found = []
    for device in _devices(reply):
        match device:
            case {
                "architecture": str(name),
                "report": bytes(report),
                "certificate_chain": bytes(chain),
                **more,
            } if not more:
                found.append(GpuEvidence(name, report, chain))
            case _:
                raise _malformed()
    return tuple(found)


def parse_states(reply: bytes) -> tuple[GpuState, ...]:
    """Read what NVML would say of each GPU. Raises: DeviceUnavailable."""
    found = []
    for device in _devices(reply):
        if {name: type(value) for name, value in device.items()} != _STATE:
            raise _malformed()
        try:
            environment, multi_gpu = Environment(device.pop("environment")), MultiGpu(device.pop("multi_gpu"))
        except ValueError:
            raise _malformed() from None
        found.append(GpuState(environment=environment, multi_gpu=multi_gpu, **device))
    return tuple(found)


def _devices(reply: bytes) -> list[dict[str, Any]]:
    match _decode(reply):
        case {"gpus": [*devices], **more} if not more and len(devices) <= MAX_GPUS:
            if all(isinstance(device, dict) for device in devices):
                return devices
    raise _malformed()


def _decode(reply: bytes) -> Any:  # noqa: ANN401 - CBOR carries any plain value
    try:
        return cbor.decode(reply, max_bytes=MAX_REPLY_BYTES)
    except Malformed:
        raise _malformed() from None


def _malformed() -> DeviceUnavailable:
    return DeviceUnavailable("the simulated device's reply is malformed")
