"""Calls of a device: one at a time, in a thread of its own, none waited for without end."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from confide_enclave.errors import DeviceUnavailable

T = TypeVar("T")


class Device:
    """One device. A call that hangs in the kernel cannot be ended: no other begins before it returns."""

    def __init__(self, path: str, *, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._idle: Future[None] = Future()
        self._idle.set_result(None)

    async def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns. Raises: DeviceUnavailable, and what `work` raises."""
        async with self._turn:
            # Only a caller that gave up, or was cancelled, leaves one running.
            await asyncio.wait([asyncio.wrap_future(self._idle)], timeout=self._timeout_s)
            if not self._idle.done():
                raise DeviceUnavailable(
                    f"{self.path}: an earlier call still hangs; restart the machine if it stays so"
                )
            answer: Future[T] = Future()
            answer.set_running_or_notify_cancel()
            self._idle = Future()
            # A daemon, so that a call that hangs does not keep the process from ending.
            Thread(target=_run, args=(work, answer, self._idle), name="confide-device", daemon=True).start()
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await asyncio.wrap_future(answer)
            except TimeoutError:
                raise DeviceUnavailable(
                    f"{self.path}: no answer within {self._timeout_s:g} s; if it is slow, raise device_timeout_s"
                ) from None


def _run(work: Callable[[], T], answer: Future[T], idle: Future[None]) -> None:
    try:
        answer.set_result(work())
    except BaseException as fault:  # noqa: BLE001 - whatever it is, the caller must hear of it
        answer.set_exception(fault)
    finally:
        idle.set_result(None)
