"""What the enclave makes of a simulated machine's answers, over a real socket."""

import asyncio
import hashlib

import pytest
from confide_enclave.collect.nvml import Environment, MultiGpu
from confide_enclave.errors import DeviceUnavailable
from confide_enclave.simulated import MAX_REPLY_BYTES, SimulatedAttester
from confide_protocol import cbor

pytestmark = pytest.mark.anyio
NONCE = bytes(range(32))
STATEMENT = b"statement"
GPU = {"architecture": "HOPPER", "report": b"r", "certificate_chain": b"c"}
STATE = {
    "index": 0,
    "uuid": "GPU-0",
    "architecture": "HOPPER",
    "driver_version": "550.90.07",
    "vbios_version": "96.00.9F.00.01",
    "environment": 2,
    "cc_on": True,
    "devtools_on": False,
    "multi_gpu": 0,
    "ready": True,
    "protected_memory_kib": 1,
}


def framed(reply: object) -> bytes:
    encoded = reply if isinstance(reply, bytes) else cbor.encode(reply)
    return len(encoded).to_bytes(4) + encoded


class Device:
    """Answers every request with the same bytes, or never."""

    def __init__(self, path: str, answer: bytes | None) -> None:
        self.path, self.answer = path, answer
        self.asked: list[object] = []

    async def __aenter__(self) -> "Device":
        self.server = await asyncio.start_unix_server(self.serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4))
        self.asked.append(cbor.decode(await reader.readexactly(length)))
        if self.answer is None:
            await asyncio.sleep(5)
        writer.write(self.answer or b"")
        writer.close()


def attester(tmp_path, timeout_s: float = 1.0, **fields) -> SimulatedAttester:
    return SimulatedAttester(str(tmp_path / "d"), timeout_s, **fields)


async def test_a_quote_is_asked_for_by_the_statements_digest(tmp_path):
    """SHA-512 of the statement goes out; kind and report come back, nothing else is believed."""
    async with Device(str(tmp_path / "d"), framed({"kind": "tdx", "report": b"quote"})) as device:
        quote = await attester(tmp_path, platform="simulated-tdx").quote(STATEMENT)
    assert device.asked == [{"report_data": hashlib.sha512(STATEMENT).digest()}]
    assert (quote.cpu.kind, quote.cpu.report, quote.event_logs) == ("tdx", b"quote", ())


async def test_a_device_of_another_platform_is_named(tmp_path):
    """Settings and device must agree."""
    async with Device(str(tmp_path / "d"), framed({"kind": "tdx", "report": b"quote"})):
        with pytest.raises(DeviceUnavailable, match="simulates tdx, and the platform is simulated-sev-snp"):
            await attester(tmp_path).quote(STATEMENT)


async def test_gpus_are_asked_with_the_nonce_if_there_are_any(tmp_path):
    """A platform that is run without GPUs asks for none."""
    async with Device(str(tmp_path / "d"), framed({"gpus": [GPU, GPU]})) as device:
        found = await attester(tmp_path, with_gpus=True).gpus(NONCE)
        assert await attester(tmp_path).gpus(NONCE) == ()
    assert device.asked == [{"gpu_nonce": NONCE}]
    assert [(gpu.architecture, gpu.report, gpu.certificate_chain) for gpu in found] == [("HOPPER", b"r", b"c")] * 2


async def test_states_are_what_nvml_would_say(tmp_path):
    """Each GPU's, typed."""
    async with Device(str(tmp_path / "d"), framed({"gpus": [STATE]})) as device:
        (state,) = await attester(tmp_path).states()
    assert device.asked == [{"gpu_states": True}]
    assert (state.environment, state.multi_gpu) == (Environment.PRODUCTION, MultiGpu.NONE)
    assert state.cc_on
    assert state.vbios_version == "96.00.9F.00.01"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0",
        b"\0\0\0\x05abc",
        (MAX_REPLY_BYTES + 1).to_bytes(4),
        framed(b"\xff"),
        framed([1]),
        framed({}),
        framed({"kind": "sev-snp"}),
        framed({"kind": "sev-snp", "report": "text"}),
        framed({"kind": "sev-snp", "report": b"", "more": 1}),
        framed({"gpus": {}}),
        framed({"gpus": [1]}),
        framed({"gpus": [{**GPU, "report": "text"}]}),
        framed({"gpus": [{**STATE, "environment": 9}]}),
        framed({"gpus": [STATE | {"more": 1}]}),
        framed({"gpus": [GPU] * 33}),
    ],
)
async def test_a_faulty_device_is_unavailable(tmp_path, answer):
    """Whatever a device says wrongly is one declared error, to every question."""
    machine = attester(tmp_path, with_gpus=True)
    async with Device(str(tmp_path / "d"), answer):
        for call in (lambda: machine.quote(STATEMENT), lambda: machine.gpus(NONCE), machine.states):
            with pytest.raises(DeviceUnavailable):
                await call()


async def test_a_silent_or_absent_device_is_unavailable(tmp_path):
    """A device that hangs is given up after its time-out; one that is not there at once."""
    async with Device(str(tmp_path / "d"), None):
        with pytest.raises(DeviceUnavailable, match="TimeoutError"):
            await attester(tmp_path, timeout_s=0.05).quote(STATEMENT)
    (tmp_path / "d").unlink(missing_ok=True)
    with pytest.raises(DeviceUnavailable, match="FileNotFoundError"):
        await attester(tmp_path).quote(STATEMENT)
