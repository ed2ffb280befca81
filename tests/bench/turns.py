"""Peers that do their work when they are told to: each in a process and an environment of its own."""

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.subjects import ROOT, START_TIMEOUT_S, PeerAbsent, Script, peer_script, read_line
from tests.bench.timing import Work, timed_us

TURN_TIMEOUT_S = 120


class Peer:
    """One running script of peers/turns.py."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self._name, self._process = name, process

    def us(self, calls: int) -> float:
        """Let it work `calls` times; return the mean time of one. Raises: PeerAbsent."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{calls}\n")
            self._process.stdin.flush()
            return float(read_line(self._process, TURN_TIMEOUT_S))
        except (OSError, ValueError):
            raise PeerAbsent(f"{self._name} broke while it was measured") from None


@contextmanager
def running(name: str, requirements: Sequence[str], folder: Path) -> Iterator[Peer]:
    """Install and start a peer on the files in `folder`; it has to accept them. Raises: PeerAbsent."""
    with starting(peer_script(name, requirements), folder) as peer:
        yield peer


@contextmanager
def starting(script: Script, folder: Path) -> Iterator[Peer]:
    """Start a peer's script on the files in `folder`. Raises: PeerAbsent."""
    process = subprocess.Popen(
        (*script.command, str(folder)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    try:
        if read_line(process, START_TIMEOUT_S) != "ready\n":
            raise PeerAbsent(f"{script.name} does not run here, or refuses this evidence")
        yield Peer(script.name, process)
    finally:
        process.kill()
        process.communicate()


def in_turns_us(
    works: Mapping[str, Work], peers: Mapping[str, Peer], *, rounds: int, calls: int, broken: dict[str, str]
) -> dict[str, float]:
    """Time our works and peers in turns; return the least mean time of one call, by name."""
    tell: dict[str, Callable[[int], float]] = {name: peer.us for name, peer in peers.items()}
    for name, work in works.items():
        tell[name] = lambda count, work=work: timed_us(work, count)  # type: ignore[misc]
    least: dict[str, float] = {}
    for turn in range(-1, rounds):
        for name, take in tell.items():
            if name in broken:
                continue
            try:
                taken_us = take(calls if turn >= 0 else 1)
            except PeerAbsent as fault:
                broken[name] = str(fault)
                least.pop(name, None)
                continue
            if turn >= 0:
                least[name] = min(least.get(name, taken_us), taken_us)
    return least
