"""One enclave over one real server for the whole run: it takes minutes to start, gigabytes and every core."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import confide
import pytest

from tests.servers.model import NAME
from tests.servers.peers import PEERS_BY_NAME, WANTED, Peer
from tests.servers.stack import RemoteStack, running

START_TIMEOUT_S = 880.0
SETTINGS = """
[model]
name = "{name}"
weights = "{weights}"

[engine]
kind = "openai"
server = "{server}"
version = "{version}"
command = ["{program}"]
context_tokens = 2048
"""


@pytest.fixture(scope="session")
def peer() -> Peer:
    if WANTED not in os.environ:
        pytest.skip(f"takes minutes, gigabytes and every core: make test-vllm, make test-llama-cpp (set {WANTED})")
    wanted = PEERS_BY_NAME[os.environ[WANTED]]
    if not wanted.installed:
        pytest.skip(f"{wanted.name} is not installed: {wanted.install}")
    return wanted


@pytest.fixture(scope="session")
def server_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the server ever says in this run."""
    return tmp_path_factory.mktemp("log") / "server.log"


@pytest.fixture(scope="session")
def weights(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return peer.weights(tmp_path_factory.mktemp("model") / NAME)


@pytest.fixture(scope="session")
def stack(
    peer: Peer, weights: Path, server_log: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RemoteStack]:
    """Give device, enclave, server and gateway; one test kills the server, and waits for the next."""
    # Short: the paths of sockets are bounded.
    rooms = Path(tempfile.mkdtemp(prefix="cv-"))
    program = peer.command(rooms / "server", server_log)
    settings = SETTINGS.format(name=NAME, weights=weights, server=peer.name, version=peer.version, program=program)
    try:
        folder = tmp_path_factory.mktemp("stack")
        with running(folder, rooms, settings + peer.engine, wait_s=START_TIMEOUT_S) as started:
            yield started
    finally:
        shutil.rmtree(rooms, ignore_errors=True)


@pytest.fixture(scope="module")
def client(stack: RemoteStack) -> confide.OpenAI:
    return stack.openai()
