"""The room where callers share quotes: coalescing, GPUs, epochs, bounds."""

import asyncio
import os

import pytest
from confide_attestation.evidence import MAX_PART_BYTES, Endorsements, TdxEndorsements, parse_bundle
from confide_attestation.nvidia.digest import gpu_evidence_digest
from confide_attestation.nvidia.spdm import parse_spdm
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor
from confide_enclave.attester import MAX_EPOCHS_WAITING, QuoteRoom
from confide_enclave.endorsements import Shelf
from confide_enclave.errors import Busy, DeviceUnavailable
from confide_protocol.statement import gpu_nonce, parse_statement

from tests.unit.enclave.support import NOW, Clock, FakeDevice
from tests.unit.enclave.test_keys import make_holder

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def gpus() -> tuple[SimulatedDevice, ...]:
    vendor = SimulatedVendor(int(NOW))
    return tuple(SimulatedDevice(vendor, pdi=bytes([number]) * 8) for number in (1, 2))


def make_room(device: FakeDevice, *, max_waiting: int = 100, interval_s: float = 0.05, **more) -> QuoteRoom:
    loop = asyncio.get_running_loop()
    return QuoteRoom(
        make_holder(Clock()),
        device,
        b"manifest",
        shelf=more.pop("shelf", Shelf()),
        max_waiting=max_waiting,
        monotonic=loop.time,
        interval_s=interval_s,
        **more,
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


async def test_gpus_answer_the_statement_that_names_them(gpus):
    """Nonce and keyset go into the GPUs' nonce, the digest of their evidence into what the CPU signs."""
    device = FakeDevice(gpus=gpus)
    room = make_room(device)
    nonces = [os.urandom(32) for _ in range(3)]
    bundles = await asyncio.gather(*(room.evidence(nonce) for nonce in nonces))
    assert device.quotes == 1
    for nonce, bundle in zip(nonces, bundles, strict=True):
        evidence, _ = parse_bundle(bundle)
        statement = parse_statement(evidence.statement)
        assert evidence.nonce_path.root(nonce) == statement.nonce
        assert evidence.cpu.report[0x50:0x90] == statement.report_data
        assert statement.gpu_evidence_digest == gpu_evidence_digest(evidence.gpus)
        assert room._holder.current.issued(statement.digest)
        asked = gpu_nonce(statement.nonce, room._holder.current.digest)
        assert [parse_spdm(gpu.report).nonce for gpu in evidence.gpus] == [asked, asked]


async def test_a_gpu_that_babbles_gives_no_evidence(gpus, monkeypatch):
    """What cannot be named in a statement is told by its fault, and nothing is signed."""
    device = FakeDevice(gpus=gpus)
    monkeypatch.setattr(SimulatedDevice, "report", lambda self, nonce: b"garbage")
    with pytest.raises(DeviceUnavailable, match="GPU's evidence"):
        await make_room(device).evidence(os.urandom(32))
    assert device.quotes == 0


async def test_an_epoch_is_shared_by_all_who_name_it(gpus):
    """The statement carries the epoch itself; nonces and other epochs get quotes of their own, in turn."""
    device = FakeDevice(gpus=gpus)
    room = make_room(device, interval_s=0.01)
    first, second = b"e" * 32, b"f" * 32
    asked = [(first, True), (b"n" * 32, False), (first, True), (second, True), (b"m" * 32, False)]
    bundles = await asyncio.gather(*(room.evidence(value, is_epoch=epoch) for value, epoch in asked))
    assert device.quotes == 3
    for (value, epoch), bundle in zip(asked, bundles, strict=True):
        evidence, _ = parse_bundle(bundle)
        statement = parse_statement(evidence.statement)
        assert (statement.epoch == value, statement.nonce is None) == (epoch, epoch)
        assert epoch or evidence.nonce_path.root(value) == statement.nonce
        nonce = gpu_nonce(statement.freshness, room._holder.current.digest)
        assert parse_spdm(evidence.gpus[0].report).nonce == nonce


async def test_waiting_epochs_are_bounded():
    """Each needs a quote of its own: one too many is told so, one that waits already may be joined."""
    room = make_room(FakeDevice(), interval_s=0.01)
    epochs = [os.urandom(32) for _ in range(MAX_EPOCHS_WAITING)]
    waiting = [asyncio.create_task(room.evidence(epoch, is_epoch=True)) for epoch in (*epochs, epochs[0])]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await room.evidence(os.urandom(32), is_epoch=True)
    assert await room.evidence(os.urandom(32))
    assert len(await asyncio.gather(*waiting)) == MAX_EPOCHS_WAITING + 1


async def test_slow_hardware_shares_the_more_and_has_an_end():
    """Who comes while a quote is being made waits for the next one; collecting ends by its time-out."""
    device = FakeDevice(wait_s=0.05)
    room = make_room(device, interval_s=0)
    first = asyncio.create_task(room.evidence(os.urandom(32)))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(room.evidence(os.urandom(32))) for _ in range(20)]
    assert len(await asyncio.gather(first, *rest)) == 21
    assert device.quotes == 2
    with pytest.raises(DeviceUnavailable, match="TimeoutError"):
        await make_room(device, timeout_s=0.01).evidence(os.urandom(32))


async def test_endorsements_go_beside_the_evidence():
    """Those at hand join those that came with the quote; a bundle over its limit is not served."""
    shelf = Shelf()
    room = make_room(FakeDevice(), interval_s=0, shelf=shelf)
    shelf.take(Endorsements(tdx=TdxEndorsements(b"collateral")))
    _, offered = parse_bundle(await room.evidence(os.urandom(32)))
    assert offered.snp.vek == b"vek"
    assert offered.tdx == TdxEndorsements(b"collateral")
    shelf.take(Endorsements(tdx=TdxEndorsements(bytes(5 * MAX_PART_BYTES))))
    with pytest.raises(DeviceUnavailable, match="larger than"):
        await room.evidence(os.urandom(32))
