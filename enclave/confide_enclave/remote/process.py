"""The life of a server beside the enclave: started, awaited, watched, started again, stopped with all its children.

All of it runs on a thread with an event loop of its own, so that a server is up before the enclave takes calls and
is stopped however the enclave ends. Does not cover: an enclave that is killed outright; what runs it must end its
whole control group, as systemd and containers do.
"""

import asyncio
import atexit
import os
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import structlog
from confide_protocol.errors import ConfigError, EngineError

from confide_enclave.remote.settings import RemoteSettings
from confide_enclave.threads import in_thread

State = Literal["loading", "ready", "lost", "failed", "closed"]
Process = subprocess.Popen[bytes]
READ_BYTES: Final = 64 << 10
POLL_S: Final = 0.05
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Launch:
    """What to start. `environment` is all that it gets; `socket` is where it will listen, empty for a port.

    `verify` is called before each start but the first; it blocks, and raises ConfigError where what the server will
    read is not what it was.
    """

    argv: Sequence[str]
    socket: str
    environment: Mapping[str, str] = field(repr=False)
    verify: Callable[[], None]


class _Ended(Exception):
    """The process ended by itself."""


class Supervisor:
    """`examine` asks the server whether it is up and the one that is meant; it raises EngineError while it is not
    up, and ConfigError for a server that never will be right. `check` asks whether it is well. `file` names the
    configuration in messages.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        launch: Launch | None,
        examine: Callable[[], Awaitable[None]],
        check: Callable[[], Awaitable[None]],
        file: str,
    ) -> None:
        self._settings, self._launch, self._file = settings, launch, file
        self._examine, self._check = examine, check
        self.state: State = "loading"
        self._well_since_s: float | None = None
        self._ready: Future[None] = Future()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._cancelled, self._ended = False, threading.Event()
        self._thread = threading.Thread(target=self._run, name="confide-engine-server", daemon=True)

    def start(self) -> None:
        """Return when the server is ready. Raises: ConfigError."""
        atexit.register(self.close)
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server with all that it started; wait for that. One that is interrupted can be called again."""
        if self._thread.ident is not None and not self._ended.is_set():
            self._started.wait()
            assert self._loop is not None  # noqa: S101 - set before _started
            assert self._task is not None  # noqa: S101
            if not self._cancelled:
                with suppress(RuntimeError):  # the loop is closed: it ended by itself
                    self._loop.call_soon_threadsafe(self._task.cancel)
                self._cancelled = True
            # Not the thread's join: once interrupted, that says ever after that the thread ended.
            self._ended.wait()
            self._thread.join()
        # Not before: whoever interrupts the wait leaves the rest to the end of the enclave.
        atexit.unregister(self.close)

    # --- From here on: the thread.

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner, suppress(asyncio.CancelledError):
                runner.run(self._main())
        finally:
            self._ended.set()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._started.set()
        last: State = "failed"
        try:
            await self._attend()
        except asyncio.CancelledError:
            last = "closed"
        except ConfigError as fault:
            log.error("engine.failed", code=fault.field)  # noqa: TRY400 - a traceback says no more
            if not self._ready.done():
                self._ready.set_exception(fault)
        except BaseException as fault:
            log.error("engine.failed", kind=type(fault).__name__)  # noqa: TRY400
            if not self._ready.done():
                self._ready.set_exception(fault)
            raise
        finally:
            self._to(last)
            if not self._ready.done():
                self._ready.cancel()

    async def _attend(self) -> None:
        """Let the server live as often as it may. Raises: ConfigError when that is over."""
        settings, loop, losses = self._settings, asyncio.get_running_loop(), 0
        while True:
            self._well_since_s = None
            await self._live()
            well_s = 0.0 if self._well_since_s is None else loop.time() - self._well_since_s
            losses = 1 if well_s >= settings.stable_s else losses + 1
            if self._launch is not None and losses > settings.max_restarts:
                raise self._wrong("engine.max_restarts", f"the server ended {losses} times in a row")
            delay_s = min(settings.restart_delay_s * 2 ** (losses - 1), settings.max_restart_delay_s)
            log.warning("engine.lost", count=losses)
            await asyncio.sleep(delay_s)

    async def _live(self) -> None:
        """One life, from its start until it is lost. Raises: ConfigError."""
        if self._launch is not None and self._ready.done():
            self._to("loading")
            await in_thread(self._launch.verify, "confide-engine-weights")
        process = self._spawn()
        drain = None if process is None else asyncio.create_task(self._drain(process))
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await self._await_ready(process)
            self._well_since_s = asyncio.get_running_loop().time()
            self._to("ready")
            if not self._ready.done():
                self._ready.set_result(None)
            await self._watch(process)
            self._to("lost")
        except _Ended:
            self._to("lost")
            if not self._ready.done():
                raise self._wrong("engine.command", f"ended before it was ready; {self._where_to_look()}") from None
        except TimeoutError:
            self._to("lost")
            if not self._ready.done():
                remedy = f"passed before the server was ready; raise it, or {self._where_to_look()}"
                raise self._wrong("engine.start_timeout_s", remedy) from None
        finally:
            if process is not None:
                await self._end(process)
            if drain is not None:
                drain.cancel()

    def _spawn(self) -> Process | None:
        if self._launch is None:
            return None
        self._to("loading")
        if self._launch.socket:
            # What a life before this one left there would be in the way.
            Path(self._launch.socket).unlink(missing_ok=True)
        try:
            # Not asyncio's: that waits for whoever still holds the pipe, when the server itself has ended.
            return subprocess.Popen(
                self._launch.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._launch.environment,
                start_new_session=True,
            )
        except OSError as fault:
            remedy = f"{self._launch.argv[0]} cannot be started ({fault.strerror})"
            raise self._wrong("engine.command", remedy) from None

    async def _await_ready(self, process: Process | None) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.health_timeout_s):
                    await self._examine()
            except (EngineError, TimeoutError):
                await self._pass(process, self._settings.poll_interval_s)
            else:
                return

    async def _watch(self, process: Process | None) -> None:
        """Return when too many checks in a row failed. Raises: _Ended."""
        misses = 0
        while misses < self._settings.max_health_failures:
            await self._pass(process, self._settings.health_interval_s)
            try:
                async with asyncio.timeout(self._settings.health_timeout_s):
                    await self._check()
            except (EngineError, TimeoutError):
                misses += 1
            else:
                misses = 0

    async def _pass(self, process: Process | None, wait_s: float) -> None:
        """Wait. Raises: _Ended when the process ends in that time."""
        if process is None:
            await asyncio.sleep(wait_s)
        elif await _ends_within(process, wait_s):
            log.warning("engine.ended", status=process.returncode)
            raise _Ended

    async def _end(self, process: Process) -> None:
        """Ask it to stop, then make sure: also of what it started, which would hold the GPUs' memory."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            await _ends_within(process, self._settings.stop_timeout_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    async def _drain(self, process: Process) -> None:
        """Keep what it prints while it loads: no prompt can be in it. Throw away the rest."""
        output = asyncio.StreamReader(limit=READ_BYTES)
        protocol = asyncio.StreamReaderProtocol(output)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, process.stdout)
        left, path = self._settings.max_log_bytes, self._settings.log_file
        try:
            while data := await output.read(READ_BYTES):
                if self.state == "loading" and path is not None and left > 0:
                    with suppress(OSError):
                        _append(Path(path), data[:left])
                    left -= len(data)
        finally:
            pipe.close()

    def _where_to_look(self) -> str:
        if self._launch is None:
            return "look at the server"
        if self._settings.log_file is None:
            return "set engine.log_file to see what it says"
        return f"what it said is in {self._settings.log_file}"

    def _to(self, state: State) -> None:
        if state != self.state:
            self.state = state
            log.info("engine.state", kind=state)

    def _wrong(self, field_name: str, remedy: str) -> ConfigError:
        return ConfigError(self._file, field_name, remedy)


async def _ends_within(process: Process, wait_s: float) -> bool:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + wait_s
    while process.poll() is None:
        if (left_s := end_s - loop.time()) <= 0:
            return False
        await asyncio.sleep(min(left_s, POLL_S))
    return True


def _append(path: Path, data: bytes) -> None:
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
        file.write(data)
