"""One enclave over the real vLLM for the whole run: it takes minutes to start, gigabytes and every core."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import confide
import pytest

from tests.bench.engine_subjects import INSTALLS, PEERS
from tests.vllm.model import NAME, write_model
from tests.vllm.stack import RemoteStack, running

WANTED = "CONFIDE_TEST_VLLM"
ENVIRONMENT = "engine_vllm"
PYTHON = PEERS / ENVIRONMENT / "bin" / "python"
START_TIMEOUT_S = 880.0
SETTINGS = """
[model]
name = "{name}"
weights = "{weights}"

[engine]
kind = "openai"
version = "{version}"
command = ["{program}"]
arguments = ["--dtype", "bfloat16", "--max-num-seqs", "16"]
context_tokens = 2048

[engine.environment]
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "0-{last_core}"
"""


@pytest.fixture(scope="session")
def server_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that vLLM ever says in this run."""
    return tmp_path_factory.mktemp("log") / "vllm.log"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if WANTED not in os.environ:
        pytest.skip(f"takes minutes, gigabytes and every core: make test-vllm (sets {WANTED})")
    if not (PEERS / ENVIRONMENT / ".ready").exists():
        pytest.skip(f"vLLM is not installed: python -m tests.bench.engine_peers {ENVIRONMENT}")
    return write_model(tmp_path_factory.mktemp("model") / NAME)


@pytest.fixture(scope="session")
def stack(weights: Path, server_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteStack]:
    """Give device, enclave, vLLM and gateway; one test kills vLLM, and waits for the next."""
    # Short: the paths of sockets are bounded.
    rooms = Path(tempfile.mkdtemp(prefix="cv-"))
    settings = SETTINGS.format(
        name=NAME,
        weights=weights,
        version=INSTALLS[ENVIRONMENT].calls[0][-1].partition("==")[2],
        program=_program(rooms / "vllm", server_log),
        last_core=(os.cpu_count() or 1) - 1,
    )
    try:
        with running(tmp_path_factory.mktemp("stack"), rooms, settings, wait_s=START_TIMEOUT_S) as started:
            yield started
    finally:
        shutil.rmtree(rooms, ignore_errors=True)


@pytest.fixture(scope="module")
def client(stack: RemoteStack) -> confide.OpenAI:
    return stack.openai()


def _program(file: Path, log: Path) -> Path:
    """Write what starts vLLM with its output in `log`: a command is one program, and gets no variable for that."""
    launch = shlex.join([str(PYTHON), str(Path(__file__).parent / "launch.py")])
    file.write_text(f'#!/bin/sh\nexport CONFIDE_TEST_LOG={shlex.quote(str(log))}\nexec {launch} "$@"\n')
    file.chmod(0o700)
    return file
