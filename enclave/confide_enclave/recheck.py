"""The enclave's own check of its GPUs, made again before each new keyset and at a reload (SPEC 5.7.2)."""

import asyncio
from collections.abc import Awaitable, Callable

from confide_protocol.errors import ConfideError
from structlog.typing import FilteringBoundLogger

from confide_enclave.errors import DeviceUnavailable

RETRY_S = 60.0


class Recheck:
    """Begins the check when new keys are due, and lets them be made once it has passed.

    While it fails, the keys that there are live to their end, no evidence is given, and the check is repeated.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[object]] | None,
        log: FilteringBoundLogger,
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        """`check` is None for a machine without GPUs; it raises ConfideError if it does not pass."""
        self._check, self._log, self._retry_s = check, log, retry_s
        self._task: asyncio.Task[None] | None = None
        self._passed = False
        self._failed = False

    def may_rotate(self) -> bool:
        """Say whether keys may be made now; a check that has passed counts for one keyset."""
        if self._check is None:
            return True
        if self._passed:
            self._passed = False
            return True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._check, for_keys=True))
        return False

    def doubt(self) -> None:
        """Take it that the GPUs do not pass, as a reload has found, until a check of our own shows that they do."""
        if self._check is None:
            return
        self._passed, self._failed = False, True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._check, for_keys=False))

    def demand(self) -> None:
        """Raises: DeviceUnavailable while the GPUs do not pass."""
        if self._failed:
            raise DeviceUnavailable("the GPUs did not pass the enclave's own check again: no keys are made")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self, check: Callable[[], Awaitable[object]], *, for_keys: bool) -> None:
        told = False
        try:
            while True:
                try:
                    await check()
                except ConfideError as fault:
                    if not told:
                        self._log.error("gpu_check.failed", code=fault.code, reason=str(fault))
                    told = self._failed = True
                    await asyncio.sleep(self._retry_s)
                else:
                    self._passed, self._failed = for_keys, False
                    return
        finally:
            self._task = None
