"""A device's calls: one at a time, none without end."""

import asyncio
import threading
import time

import pytest
from confide_enclave.collect.device import Device
from confide_enclave.errors import DeviceUnavailable

pytestmark = pytest.mark.anyio


async def test_calls_run_one_after_another_off_the_event_loop():
    """Two calls never overlap, and neither runs in the loop's own thread."""
    device, running, most, threads = Device("/dev/x", timeout_s=5), 0, 0, set()

    def work() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        threads.add(threading.get_ident())
        time.sleep(0.01)
        running -= 1
        return 7

    assert await asyncio.gather(*(device.call(work) for _ in range(4))) == [7] * 4
    assert most == 1
    assert threading.get_ident() not in threads


async def test_a_hung_call_is_given_up_and_no_other_begins_before_it_returns():
    """After its time limit a call fails, and so does the next; it is served when the device is free again."""
    device, release = Device("/dev/x", timeout_s=0.05), threading.Event()
    with pytest.raises(DeviceUnavailable, match=r"/dev/x: no answer within 0.05 s"):
        await device.call(release.wait)
    with pytest.raises(DeviceUnavailable, match="still hangs"):
        await device.call(lambda: 1)
    waiting = Device("/dev/x", timeout_s=10)
    waiting._idle = device._idle
    served = asyncio.create_task(waiting.call(lambda: 1))
    await asyncio.sleep(0.01)
    assert not served.done()
    release.set()
    assert await served == 1


async def test_a_fault_of_the_call_reaches_the_caller():
    """What the work raises is raised, a time-out of the system included."""

    def fail() -> None:
        raise DeviceUnavailable("the reason")

    with pytest.raises(DeviceUnavailable, match="the reason"):
        await Device("/dev/x", timeout_s=5).call(fail)


async def test_a_cancelled_caller_leaves_the_device_usable():
    """The next waits for the call that nobody waits for any more, and is served."""
    device, release = Device("/dev/x", timeout_s=5), threading.Event()
    waiting = asyncio.create_task(device.call(release.wait))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    after = asyncio.create_task(device.call(lambda: 2))
    await asyncio.sleep(0.01)
    assert not after.done()
    release.set()
    assert await after == 2
