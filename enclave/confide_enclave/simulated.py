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
        reply = await self._ask({"report_data": hashlib.sha512(statement).digest()})
        match reply:
            case {"kind": str(kind), "report": bytes(report), **more} if not more:
                if SIMULATED + kind != self.platform:
                    raise DeviceUnavailable(f"the device simulates {kind}, and the platform is {self.platform}")
                return Quote(CpuEvidence(CpuKind(kind), report))
        raise _malformed()

    async def states(self) -> tuple[GpuState, ...]:
        """Return what NVML would say of each GPU. Raises: DeviceUnavailable."""
        found = []
        for tree in self._devices(await self._ask({"gpu_states": True})):
            try:
                environment, multi_gpu = Environment(tree.pop("environment")), MultiGpu(tree.pop("multi_gpu"))
                found.append(GpuState(environment=environment, multi_gpu=multi_gpu, **tree))
            except (KeyError, TypeError, ValueError):
                raise _malformed() from None
        return tuple(found)

    async def evidence(self, nonce: bytes) -> tuple[GpuEvidence, ...]:
        """Have every GPU sign 32 bytes. Raises: DeviceUnavailable. Does not check: what was signed."""
        found = []
        for tree in self._devices(await self._ask({"gpu_nonce": nonce})):
            match tree:
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

    async def make_ready(self) -> None:
        """Do nothing: simulated GPUs are ready."""

    def _devices(self, reply: dict[str, Any]) -> list[dict[str, Any]]:
        match reply:
            case {"gpus": [*devices], **more} if not more and len(devices) <= MAX_GPUS:
                if all(isinstance(device, dict) for device in devices):
                    return devices
        raise _malformed()

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
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
                    data = await reader.readexactly(length)
                finally:
                    writer.close()
        except (OSError, EOFError, TimeoutError) as fault:
            raise DeviceUnavailable(f"the simulated device gave no answer ({type(fault).__name__})") from None
        try:
            reply = cbor.decode(data, max_bytes=MAX_REPLY_BYTES)
        except Malformed:
            reply = None
        if not isinstance(reply, dict):
            raise _malformed()
        return reply


def _malformed() -> DeviceUnavailable:
    return DeviceUnavailable("the simulated device's reply is malformed")
