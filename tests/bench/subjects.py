"""Servers under measurement: each in a process of its own, with a driver process that loads it."""

import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "build" / "peers"
INSTALL_TIMEOUT_S = 300
START_TIMEOUT_S = 60
DRIVE_TIMEOUT_S = 60
WARM_UP = 3


class PeerAbsent(Exception):
    """A peer cannot be installed or does not run here; the message is the reason for a person."""


@dataclass(frozen=True)
class Script:
    """A command with the modes `serve` and `drive READY` of peers/loopback.py."""

    name: str
    command: tuple[str, ...]


def peer_script(name: str, requirements: Sequence[str]) -> Script:
    """Install a peer into build/peers/NAME, once, and return its script. Raises: PeerAbsent."""
    folder = PEERS / name
    mark = folder / ".ready"
    wanted = "\n".join(requirements)
    python = folder / "bin" / "python"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"bench: installing {requirements[0]} into its own environment", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            for command in (
                (sys.executable, "-m", "venv", str(folder)),
                (str(python), "-m", "pip", "install", "-q", "--only-binary", ":all:", *requirements),
            ):
                subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError):
            raise PeerAbsent(f"pip could not install {requirements[0]}") from None
        mark.write_text(wanted)
    return Script(name, (str(python), str(Path(__file__).parent / "peers" / f"peer_{name}.py")))


class Subject:
    """One running server and its driver."""

    def __init__(self, script: Script, server: subprocess.Popen[str], driver: subprocess.Popen[str]) -> None:
        self.name = script.name
        self._server, self._driver = server, driver

    def cpu_us(self, kind: str, count: int) -> float:
        """Run `count` exchanges; return the server's CPU time for one, in user and kernel, all threads.

        Raises: PeerAbsent when the driver or the server broke.
        """
        before_ns = _process_ns(self._server.pid)
        assert self._driver.stdin is not None
        try:
            self._driver.stdin.write(f"{kind} {count}\n")
            self._driver.stdin.flush()
        except OSError:
            raise PeerAbsent(f"{self.name}'s driver does not run here") from None
        if read_line(self._driver, DRIVE_TIMEOUT_S) != "done\n":
            raise PeerAbsent(f"{self.name} broke while it was measured")
        return (_process_ns(self._server.pid) - before_ns) / count / 1000


@contextmanager
def running(scripts: Sequence[Script]) -> Iterator[tuple[dict[str, Subject], dict[str, str]]]:
    """Start every script; yield what runs, and for what does not the reason. Ends all of them afterwards."""
    subjects: dict[str, Subject] = {}
    reasons: dict[str, str] = {}
    with ExitStack() as stack:
        for script in scripts:
            try:
                subjects[script.name] = _start(script, stack)
            except PeerAbsent as fault:
                reasons[script.name] = str(fault)
        yield subjects, reasons


def interleaved_cpu_us(
    subjects: Mapping[str, Subject], counts: Mapping[str, int], *, rounds: int, broken: dict[str, str]
) -> dict[tuple[str, str], float]:
    """Measure all subjects in turns; return the median over rounds by (subject, kind of exchange).

    A subject that breaks is left out from then on, and `broken` says why.
    """
    taken: dict[tuple[str, str], list[float]] = {}
    for turn in range(-1, rounds):
        for kind, count in counts.items():
            for name in sorted(set(subjects) - set(broken)):
                try:
                    cpu_us = subjects[name].cpu_us(kind, count if turn >= 0 else WARM_UP)
                except PeerAbsent as fault:
                    broken[name] = str(fault)
                    continue
                if turn >= 0:
                    taken.setdefault((name, kind), []).append(cpu_us)
    return {key: median(values) for key, values in taken.items() if key[0] not in broken}


def _start(script: Script, stack: ExitStack) -> Subject:
    server = stack.enter_context(process_of((*script.command, "serve")))
    ready = read_line(server, START_TIMEOUT_S)
    if not ready:
        raise PeerAbsent(f"{script.name}'s server does not start here")
    return Subject(script, server, stack.enter_context(process_of((*script.command, "drive", ready))))


@contextmanager
def process_of(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process that is told and asked line by line, until it is no longer needed."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str], timeout_s: float) -> str:
    """Read one line; empty when the process ended or took too long. It never has said more than that line."""
    assert process.stdout is not None
    return process.stdout.readline() if select.select([process.stdout], [], [], timeout_s)[0] else ""


def _process_ns(pid: int) -> int:
    """Read another process's CPU clock (Linux: the clock id that clock_getcpuclockid(3) makes)."""
    return time.clock_gettime_ns((~pid << 3) | 2)
