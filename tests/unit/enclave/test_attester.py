"""The device socket, and the room where nonces share quotes."""

import asyncio
import os

import pytest
from confide_attestation.evidence import parse_bundle
from confide_enclave.attester import QuoteRoom, SimulatedSnpAttester
from confide_enclave.errors import Busy, DeviceUnavailable
from confide_protocol import cbor
from confide_protocol.statement import parse_statement

from tests.unit.enclave.support import Clock, FakeDevice
from tests.unit.enclave.test_keys import make_holder

pytestmark = pytest.mark.anyio

REPORT_DATA = bytes(range(64))


def framed(reply: object) -> bytes:
    encoded = reply if isinstance(reply, bytes) else cbor.encode(reply)
    return len(encoded).to_bytes(4) + encoded


def reply(report_data: bytes = REPORT_DATA, **changes: object) -> dict[str, object]:
    report = bytes(0x50) + report_data + bytes(1184 - 0x90)
    return {"report": report, "vek": b"v", "ask": b"a", "ark": b"r", **changes}


async def ask(tmp_path, answer: bytes | None, timeout_s: float = 1.0):
    """Run one quote against a device that answers with these bytes, or never."""
    asked = []

    async def serve(reader, writer):
        asked.append(await reader.readexactly(64))
        if answer is None:
            await asyncio.sleep(5)
        writer.write(answer or b"")
        writer.close()

    path = str(tmp_path / "d.sock")
    server = await asyncio.start_unix_server(serve, path)
    try:
        quote = await SimulatedSnpAttester(path, timeout_s).quote(REPORT_DATA)
    finally:
        server.close()
    assert asked == [REPORT_DATA]
    return quote


async def test_a_quote_is_read_from_the_device(tmp_path):
    """The report answers the report data; the endorsements come along."""
    quote = await ask(tmp_path, framed(reply()))
    assert quote.cpu.report[0x50:0x90] == REPORT_DATA
    assert quote.endorsements.snp.vek == b"v"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0",
        b"\0\0\0\x05abc",
        (1 << 20).to_bytes(4),
        framed(b"\xff"),
        framed([1]),
        framed({"report": b""}),
        framed(reply(vek="text")),
        framed(reply(report=bytes(1183))),
        framed(reply(bytes(64))),
    ],
)
async def test_a_faulty_device_is_unavailable(tmp_path, answer):
    """Whatever a device says wrongly is one declared error."""
    with pytest.raises(DeviceUnavailable):
        await ask(tmp_path, answer)


async def test_a_silent_or_absent_device_is_unavailable(tmp_path):
    """A device that hangs is given up after its time-out; one that is not there at once."""
    with pytest.raises(DeviceUnavailable):
        await ask(tmp_path, None, timeout_s=0.05)
    with pytest.raises(DeviceUnavailable):
        await SimulatedSnpAttester(str(tmp_path / "none"), 1.0).quote(REPORT_DATA)


def make_room(device: FakeDevice, *, max_waiting: int = 100, interval_s: float = 0.05) -> QuoteRoom:
    loop = asyncio.get_running_loop()
    holder = make_holder(Clock())
    return QuoteRoom(
        holder, device, b"manifest", max_waiting=max_waiting, monotonic=loop.time, interval_s=interval_s
    )


async def test_pending_nonces_share_one_quote():
    """A lone caller is served at once; all who come within the interval share the next quote."""
    device = FakeDevice()
    room = make_room(device)
    nonces = [os.urandom(32) for _ in range(9)]
    bundles = [await room.evidence(nonces[0])]
    bundles += await asyncio.gather(*(room.evidence(nonce) for nonce in nonces[1:]))
    assert device.quotes == 2
    statements = set()
    for nonce, bundle in zip(nonces, bundles, strict=True):
        evidence, _ = parse_bundle(bundle)
        statement = parse_statement(evidence.statement)
        assert evidence.nonce_path.root(nonce) == statement.nonce
        assert evidence.cpu.report[0x50:0x90] == statement.report_data
        assert room._holder.current.issued(statement.digest)
        statements.add(statement.digest)
    assert len(statements) == 2


async def test_at_most_one_quote_an_interval():
    """Callers one after another are held to the device's pace."""
    device = FakeDevice()
    room = make_room(device, interval_s=0.05)
    started = asyncio.get_running_loop().time()
    for _ in range(4):
        await room.evidence(os.urandom(32))
    assert device.quotes == 4
    assert asyncio.get_running_loop().time() - started >= 0.14


async def test_the_waiting_room_is_bounded():
    """One caller too many is told so; those who wait are served."""
    room = make_room(FakeDevice(), max_waiting=2)
    waiting = [asyncio.create_task(room.evidence(os.urandom(32))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await room.evidence(os.urandom(32))
    assert all(await asyncio.gather(*waiting))
    assert await room.evidence(os.urandom(32))


async def test_a_caller_that_left_takes_no_place():
    """A cancelled caller is forgotten, and the others are served."""
    device = FakeDevice()
    room = make_room(device)
    await room.evidence(os.urandom(32))
    leaver = asyncio.create_task(room.evidence(os.urandom(32)))
    stayer = asyncio.create_task(room.evidence(os.urandom(32)))
    await asyncio.sleep(0)
    leaver.cancel()
    assert parse_bundle(await stayer)[0].nonce_path.steps == ()


async def test_a_failing_device_fails_all_who_wait_and_then_recovers():
    """Everyone pending hears of it; the next caller gets a quote again."""
    device = FakeDevice(DeviceUnavailable())
    room = make_room(device)
    outcomes = await asyncio.gather(*(room.evidence(os.urandom(32)) for _ in range(3)), return_exceptions=True)
    assert [type(o) for o in outcomes] == [DeviceUnavailable] * 3
    device.fault = None
    assert await room.evidence(os.urandom(32))


async def test_an_unforeseen_failure_leaves_nobody_waiting():
    """Even a bug in an attester ends its callers' wait."""
    room = make_room(FakeDevice(RuntimeError()))
    outcomes = await asyncio.gather(*(room.evidence(os.urandom(32)) for _ in range(2)), return_exceptions=True)
    assert [type(o) for o in outcomes] == [DeviceUnavailable] * 2


async def test_closing_the_room_ends_every_wait():
    """Shutdown does not hang on a pending quote."""
    room = make_room(FakeDevice(), interval_s=60)
    await room.evidence(os.urandom(32))
    waiting = asyncio.create_task(room.evidence(os.urandom(32)))
    await asyncio.sleep(0)
    await room.close()
    with pytest.raises(DeviceUnavailable):
        await waiting
