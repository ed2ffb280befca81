"""Work that blocks, beside the event loop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], name: str) -> T:
    """Wait for blocking work, which may take minutes, on a thread that does not keep the process from ending.

    Whoever gives up waiting leaves the thread behind.
    """
    done: Future[T] = Future()

    def run() -> None:
        if done.set_running_or_notify_cancel():
            try:
                done.set_result(work())
            except BaseException as fault:  # noqa: BLE001 - handed to whoever waits
                done.set_exception(fault)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(done)
