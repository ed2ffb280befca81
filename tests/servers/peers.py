"""The real servers that an enclave is tested over: how each is installed, configured and started."""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confide_enclave.engine.card import default_weights

from tests.bench.engine_subjects import INSTALLS, PEERS
from tests.servers.llama_cpp.build import ENVIRONMENT as LLAMA_CPP
from tests.servers.llama_cpp.build import VERSION as LLAMA_CPP_VERSION
from tests.servers.model import write_model

WANTED: Final = "CONFIDE_TEST_SERVER"
_VLLM: Final = "engine_vllm"
_LAST_CORE: Final = (os.cpu_count() or 1) - 1


@dataclass(frozen=True)
class Peer:
    """`environment` is its folder of build/peers; `says` what it prints when it is up, if it prints anything.

    `weights` makes in a folder what it reads, or names what is there. `engine` are settings beside its command.
    """

    name: str
    version: str
    environment: str
    install: str
    program: Sequence[str]
    weights: Callable[[Path], Path]
    engine: str
    says: str = ""

    @property
    def installed(self) -> bool:
        return (PEERS / self.environment / ".ready").exists()

    def command(self, file: Path, log: Path) -> Path:
        """Write a program that starts it with all its output in `log`, as a test alone may read it."""
        started = shlex.join(self.program)
        file.write_text(f'#!/bin/sh\nexec {started} "$@" >> {shlex.quote(str(log))} 2>&1\n')
        file.chmod(0o700)
        return file


PEERS_BY_NAME: Final = {
    peer.name: peer
    for peer in (
        Peer(
            name="vllm",
            version=INSTALLS[_VLLM].calls[0][-1].partition("==")[2],
            environment=_VLLM,
            install=f"python -m tests.bench.engine_peers {_VLLM}",
            program=(str(PEERS / _VLLM / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"),
            weights=write_model,
            engine=f"""
arguments = ["--dtype", "bfloat16", "--max-num-seqs", "16"]

[engine.environment]
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "0-{_LAST_CORE}"
""",
            says="Application startup complete",
        ),
        Peer(
            name="llama.cpp",
            version=LLAMA_CPP_VERSION,
            environment=LLAMA_CPP,
            install="python -m tests.servers.llama_cpp.build",
            program=(str(PEERS / LLAMA_CPP / "bin" / "llama-server"),),
            weights=lambda _folder: default_weights(),
            engine=f"""
max_requests = 4
arguments = ["--threads", "{_LAST_CORE + 1}"]
""",
        ),
    )
}
