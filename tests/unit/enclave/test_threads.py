"""Work that blocks."""

import asyncio

import pytest
from confide_enclave.threads import in_thread

pytestmark = pytest.mark.anyio


async def test_blocking_work_gives_its_value_or_its_fault() -> None:
    """And one who no longer waits is not missed."""
    assert await in_thread(lambda: 7, "test") == 7
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, "test")
    task = asyncio.create_task(in_thread(lambda: 7, "test"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
