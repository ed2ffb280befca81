"""The command that a stranger types first."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import confide
import httpx2
import pytest
from confide.policy_memory import PolicyMemory

CONFIDE = [sys.executable, "-m", "confide.cli"]
LIMIT_S = 120


def descendants(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`, and theirs."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = re.search(r"^PPid:\s(\d+)$", status.read_text(), re.MULTILINE)
        except OSError:
            continue
        if parent is not None and int(parent[1]) == pid:
            child = int(status.parent.name)
            found += [child, *descendants(child)]
    return found


def are_gone(pids: list[int], within_s: float = 10) -> bool:
    deadline_s = time.monotonic() + within_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which the demo's temporary folder can be found."""
    return {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PYTHONUNBUFFERED": "1",
    }


def test_one_question_end_to_end(tmp_path: Path, environment: dict[str, str]) -> None:
    """Banner, every check, an answer in English, the receipt; an audit file that holds; nothing left behind."""
    kept = tmp_path / "kept.audit"
    done = subprocess.run(
        [*CONFIDE, "demo", "--save", kept], env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    told = done.stdout
    assert done.returncode == 0, done.stderr
    assert told.index("SIMULATED HARDWARE") < told.index("PASS report_sig") < told.index("PASS gpu_report_sig")
    assert told.index("PASS gpu_measurements — 33 of 33") < told.index("Paris")
    assert "FAIL" not in told
    assert re.search(r"^SKIP \w+ — waived by the policy: .{10,}", told, re.MULTILINE)
    assert told.index("Paris") < told.index("The receipt, verified")
    assert re.search(r"First words \d+\.\d\d s after asking", told)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.audit"]
    judged = subprocess.run(
        [*CONFIDE, "audit", kept, "--allow-simulated", "--words"], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert judged.returncode == 0, judged.stdout
    assert "all holds" in judged.stdout
    assert "Paris" in judged.stdout


def test_tdx_without_gpus(environment: dict[str, str]) -> None:
    """The other CPU, and a machine whose policy demands no GPU."""
    done = subprocess.run(
        [*CONFIDE, "demo", "--platform", "tdx", "--gpus", "0"],
        env=environment, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Starting: simulated Intel TDX, enclave" in done.stdout
    assert done.stdout.index("PASS quote_signature") < done.stdout.index("Paris")
    assert "NVIDIA devices" not in done.stdout
    assert "FAIL" not in done.stdout


def test_the_playground_stays_up_and_ends_clean(tmp_path: Path, environment: dict[str, str]) -> None:
    """--serve prints what a client needs, serves what was asked for, and Ctrl-C leaves no process and no file."""
    more = ("--gpus", "0", "--embeddings", "--cors-origin", "http://127.0.0.1:5173")
    demo = subprocess.Popen(
        [*CONFIDE, "demo", "--serve", "--prompt", "Say hello.", *more],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # Shells have what they run in the background ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert demo.stdout is not None
        told = ""
        while "allow_simulated=True)" not in told:
            line = demo.stdout.readline()
            assert line, told
            told += line
        found = {
            name: re.search(rf"^  {name} +(\S+)$", told, re.MULTILINE) for name in ("base_url", "api_key", "policy")
        }
        options = {name: match[1] for name, match in found.items() if match}
        client = confide.OpenAI(**options, allow_simulated=True, memory=PolicyMemory(None))
        assert client.models.list().data
        assert client.embeddings.create(model="all-minilm-l6-v2", input="Hello.").data
        page = {"origin": "http://127.0.0.1:5173", "access-control-request-method": "POST"}
        allowed = httpx2.options(options["base_url"].replace("/v1", "/evidence"), headers=page)
        assert allowed.headers["access-control-allow-origin"] == "http://127.0.0.1:5173"
        children = descendants(demo.pid)
        assert len(children) >= 3
        demo.send_signal(signal.SIGINT)
        assert demo.wait(20) == 130
        assert are_gone(children)
        assert [path for path in tmp_path.iterdir() if path.name.startswith("confide-")] == []
        assert demo.stderr is not None
        assert "Traceback" not in demo.stderr.read()
    finally:
        demo.kill()
        demo.communicate()


def test_a_demo_that_is_told_to_stop_takes_its_children_along(environment: dict[str, str]) -> None:
    """SIGTERM in the middle of the start: everything ends."""
    with subprocess.Popen(
        [*CONFIDE, "demo"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as demo:
        deadline_s = time.monotonic() + LIMIT_S
        while not (children := descendants(demo.pid)) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        time.sleep(0.3)
        children += descendants(demo.pid)
        demo.terminate()
        assert demo.wait(20) == 128 + signal.SIGTERM
    assert are_gone(children)


def test_a_port_in_use_is_one_line(environment: dict[str, str], stack) -> None:
    """The gateway's own message reaches the user in one line, exit 2, and nothing is left."""
    port = stack.url.rpartition(":")[2]
    done = subprocess.run(
        [*CONFIDE, "demo", "--port", port], env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "gateway" in line
    assert port in line
