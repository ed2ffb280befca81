"""The enclave's own command over an engine in another process: ready and stopped with it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai
import pytest
from click.testing import CliRunner
from confide.audit import audit_file
from confide.cli import main
from confide.playground import ENCLAVE, playground
from confide_protocol.errors import RelayRefused

from tests.servers.stack import RemoteStack, children, running
from tests.unit.enclave.remote.fake import VERSION
from tests.unit.enclave.remote.support import model, program, spell

SETTINGS = """
[model]
name = "toy"
weights = "{weights}"

[engine]
kind = "openai"
version = "{version}"
command = ["{program}"]
poll_interval_s = 0.05
"""
ASKED = {"model": "toy", "messages": [{"role": "user", "content": "canary?"}]}


def written(folder: Path, *, version: str = VERSION, load_s: str = "0.2") -> str:
    ids = ",".join(map(str, spell("It is Paris.")))
    fake = {"FAKE_IDS": ids, "FAKE_LOAD_S": load_s, "FAKE_STEP_S": "0.03", "FAKE_NOTES": str(folder / "notes")}
    fake["FAKE_HOLD"] = str(folder / "hold")
    return SETTINGS.format(weights=model(), version=version, program=program(fake))


@contextmanager
def short_folder() -> Iterator[Path]:
    """Give a folder whose sockets' paths are short enough."""
    folder = Path(tempfile.mkdtemp(prefix="cr-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteStack]:
    folder = tmp_path_factory.mktemp("stack")
    with short_folder() as rooms, running(folder, rooms, written(folder), wait_s=30) as started:
        yield started


def test_sealed_and_signed_as_any_engine(stack: RemoteStack, tmp_path: Path) -> None:
    """The SDK sees one API; the receipt says fast, and whoever wants to run it again is told why not."""
    with stack.openai() as client:
        assert client.chat.completions.create(**ASKED).choices[0].message.content == "It is Paris."
        parts = client.chat.completions.create(**ASKED, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "It is Paris."
        assert client.last_receipt is not None
        assert client.last_receipt.claims.engine_mode == "fast"
        kept = audit_file(client.last_receipt, stack.ground.policy_file.read_bytes(), disclose=True)
    file = tmp_path / "kept.confide"
    file.write_bytes(kept.encoded)
    result = CliRunner().invoke(
        main, ["audit", str(file), "--allow-simulated", "--rerun", "--weights", str(model())]
    )
    assert result.exit_code == 1
    assert f"FAIL rerun_mode — not replayable: vllm {VERSION} answered" in result.stdout


def test_killed_amid_an_answer_it_comes_back_for_the_next(stack: RemoteStack) -> None:
    """Behind the seal too: one error and a receipt of it; then sealed 503s, and then an answer."""
    first = stack.server_pid
    ended = stack.interrupted({"messages": ASKED["messages"]}, 1, lambda: os.kill(first, signal.SIGKILL))
    assert ended == "engine_lost"
    end_s, codes = time.monotonic() + 10, set()
    with stack.openai(max_retries=0) as client:
        while time.monotonic() < end_s:
            try:
                client.chat.completions.create(**ASKED)
                break
            except openai.APIStatusError as fault:
                codes.add((fault.status_code, fault.code))
                assert client.last_receipt is not None
            except RelayRefused as fault:  # the gateway has noticed: no node of it is ready
                codes.add((fault.status, "clear"))
        else:
            pytest.fail("it did not come back")
    assert codes <= {(503, "engine_loading"), (503, "engine_lost"), (503, "clear")}
    assert codes


def test_its_logs_tell_of_states_and_of_no_words(stack: RemoteStack) -> None:
    """Ready, lost, loading, ready; the fake says what it was asked on its own output, which goes nowhere."""
    logs = {path.name: path.read_text() for path in stack.ground.folder.glob("*.log")}
    assert [
        state for state in ("ready", "lost", "loading") if f'"kind": "{state}"' not in logs["enclave.log"]
    ] == []
    assert not [name for name, text in logs.items() if "canary" in text]


def test_a_sigterm_while_it_loads_ends_both(tmp_path: Path) -> None:
    """The enclave was not ready and does not leave a server behind."""
    with short_folder() as rooms, playground(tmp_path, gpus=0) as ground:
        ground.start_device().ready()
        ground.write("gateway.secret", "s" * 64)
        settings = ENCLAVE.format(port=0, platform="sev-snp") + written(tmp_path, load_s="60")
        environment = {**os.environ, "TMPDIR": str(rooms)}
        command = [sys.executable, "-m", "confide.cli", "enclave", "--config", ground.write("e.toml", settings)]
        enclave = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        end_s = time.monotonic() + 20
        while not (tmp_path / "notes").exists() and time.monotonic() < end_s:
            time.sleep(0.05)
        time.sleep(0.2)
        (server,) = children(enclave.pid)
        enclave.terminate()
        output, _ = enclave.communicate(timeout=20)
        assert output == b""
        assert enclave.returncode == 128 + signal.SIGTERM
        assert not Path(f"/proc/{server}").exists()
        assert list(rooms.iterdir()) == []


def test_another_version_ends_the_start_with_a_clear_line(tmp_path: Path) -> None:
    """Exit status 2, what the server says of itself, and what to do."""
    with short_folder() as rooms, playground(tmp_path, gpus=0) as ground:
        ground.start_device().ready()
        ground.write("gateway.secret", "s" * 64)
        settings = ENCLAVE.format(port=0, platform="sev-snp") + written(tmp_path, version="0.99.0")
        command = [sys.executable, "-m", "confide.cli", "enclave", "--config", ground.write("e.toml", settings)]
        done = subprocess.run(command, env={**os.environ, "TMPDIR": str(rooms)}, capture_output=True, timeout=30)
        assert done.returncode == 2
        last = done.stderr.decode().splitlines()[-1]
        assert "engine.version: the server says 0.32.0" in last
        assert list(rooms.iterdir()) == []


def test_it_needs_no_torch() -> None:
    """vLLM brings its own, in an environment of its own."""
    code = (
        "import sys, confide_enclave.cli, confide_enclave.remote.engine as e\n"
        "print(e.RemoteEngine.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["RemoteEngine", "False"]


def test_readiness_waits_for_the_engine_and_health_does_not(stack: RemoteStack) -> None:
    """Killed, the enclave lives and is not ready, nor is the gateway, whose only node it is; then both are."""
    with httpx2.Client(trust_env=False) as http:

        def states() -> tuple[int, int, int]:
            places = (stack.enclave_url + "/healthz", stack.enclave_url + "/readyz", stack.url + "/readyz")
            healthy, ready, routed = (http.get(place).status_code for place in places)
            return healthy, ready, routed

        def wait_for(wanted: tuple[int, int, int]) -> None:
            end_s = time.monotonic() + 20
            while (now := states()) != wanted:
                assert time.monotonic() < end_s, now
                time.sleep(0.05)

        wait_for((200, 200, 200))
        (stack.ground.folder / "hold").touch()
        os.kill(stack.server_pid, signal.SIGKILL)
        wait_for((200, 503, 503))
        (stack.ground.folder / "hold").unlink()
        wait_for((200, 200, 200))
