"""Time-outs that a shutdown brings forward."""

import asyncio

import pytest
from confide_enclave.deadlines import Deadlines

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("steps", range(5))
async def test_a_shutdown_meets_a_timeout_that_has_just_expired(steps):
    """Whatever the event loop has done by then, the shutdown goes on and the time-out is raised."""
    deadlines, now_s = Deadlines(), asyncio.get_running_loop().time()

    async def late() -> None:
        async with deadlines.until(now_s):
            await asyncio.sleep(10)

    task = asyncio.create_task(late())
    for _ in range(steps):
        await asyncio.sleep(0)
    deadlines.stop_at(now_s)
    with pytest.raises(TimeoutError):
        await task
