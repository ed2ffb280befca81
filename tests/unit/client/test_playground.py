"""Processes of the playground: first words, last words, and none left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confide.playground import Child, Platform, PlaygroundFailed, playground, stopping
from confide_attestation.policy import load_policy
from confide_protocol.errors import ConfigError


def child(folder: Path, script: str) -> Child:
    return Child("child", [sys.executable, "-c", script], folder)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_first_line_is_read(tmp_path: Path) -> None:
    """A ready line arrives even in pieces, and the process goes on."""
    one = child(tmp_path, "import sys,time\nfor c in '{\"a\": 1}\\n': print(c, end='', flush=True)\ntime.sleep(60)")
    assert one.ready(20) == {"a": 1}
    assert one.process.poll() is None
    one.stop()
    assert is_gone(one.process.pid)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import sys; sys.exit('model: is missing; install it')", "model: is missing"),
        ("", "said nothing"),
        ("print('hello')", "not JSON"),
        ("print('[1]')", "not JSON"),
    ],
)
def test_a_failed_start_is_told_in_its_own_words(tmp_path: Path, script: str, words: str) -> None:
    """A process that ends or babbles is PlaygroundFailed with its last line of stderr."""
    one = child(tmp_path, script)
    with pytest.raises(PlaygroundFailed, match=words) as caught:
        one.ready(20)
    one.stop()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ConfigError)


def test_a_silent_start_ends_by_its_limit(tmp_path: Path) -> None:
    """A process that never says that it is ready is given up."""
    one = child(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(PlaygroundFailed, match="not ready within"):
        one.ready(0.2)
    one.stop()


def test_a_missing_command_is_told(tmp_path: Path) -> None:
    """A command that is not installed is named."""
    with pytest.raises(PlaygroundFailed, match="cannot be run"):
        Child("child", [str(tmp_path / "absent")], tmp_path)


def test_a_stubborn_process_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ignores SIGTERM is gone after the time-out."""
    monkeypatch.setattr("confide.playground.STOP_TIMEOUT_S", 0.3)
    script = (
        "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('{}', flush=True)\ntime.sleep(60)"
    )
    one = child(tmp_path, script)
    one.ready(20)
    one.stop()
    assert is_gone(one.process.pid)


def test_no_process_outlives_the_block(tmp_path: Path) -> None:
    """Whatever ends the block, the processes end, and the folder is for its owner alone."""
    pids: list[int] = []

    def fail() -> None:
        with playground(tmp_path) as ground:
            for name in "ab":
                pids.append(ground.spawn(name, sys.executable, "-c", "import time; time.sleep(60)").process.pid)
            ground.check()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(map(is_gone, pids))
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_process_that_ended_is_noticed(tmp_path: Path) -> None:
    """`check` names the process that ended by itself."""
    with playground(tmp_path) as ground:
        ground.spawn("short", sys.executable, "-c", "import sys; sys.exit('gone')").process.wait(20)
        with pytest.raises(PlaygroundFailed, match="short: gone"):
            ground.check()


def test_sigterm_ends_the_block(tmp_path: Path) -> None:
    """SIGTERM to the parent ends its children too."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom confide.playground import playground, stopping\n"
        f"with stopping(), playground(Path({str(tmp_path)!r})) as ground:\n"
        "    one = ground.spawn('one', sys.executable, '-c', 'import time; time.sleep(60)')\n"
        "    print(one.process.pid, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(20) == 128 + signal.SIGTERM
    assert is_gone(pid)


def test_handlers_are_put_back() -> None:
    """After the block the signals do what they did before."""
    before = signal.getsignal(signal.SIGTERM)
    with stopping():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


GPU_SAYS = {
    "nvidia_device_root_spki_sha256": "11" * 32,
    "nvidia_rim_root_spki_sha256": "22" * 32,
    "driver": "550.90.07",
    "firmware": "96.00.9F.00.01",
}
SNP_SAYS = {"amd_ark_sha256": "ab" * 32, "measurement": "cd" * 48}
TDX_SAYS = {
    "intel_root_sha256": "ab" * 32,
    "mr_td": "cd" * 48,
    "rtmrs": ["01" * 48, "02" * 48, "03" * 48, "00" * 48],
}


@pytest.mark.parametrize("gpus", [0, 1, 4])
@pytest.mark.parametrize("kind", ["sev-snp", "tdx"])
def test_the_policy_pins_this_run(tmp_path: Path, kind: Platform, gpus: int) -> None:
    """The written policy is of kind simulated and names devices, image and manifest."""
    says = (SNP_SAYS if kind == "sev-snp" else TDX_SAYS) | GPU_SAYS
    with playground(tmp_path, platform=kind, gpus=gpus) as ground:
        path = ground.write_policy(says, "ef" * 32)
    policy = load_policy(path.read_bytes(), "policy.toml")
    assert (policy.kind, policy.id, policy.shape) == ("simulated", "playground-abababab", "bucketed")
    assert policy.platform_name == f"simulated-{kind}"
    assert policy.manifest.digests == ("ef" * 32,)
    roots = policy.roots
    assert roots is not None
    assert (roots.amd_ark_sha256, roots.intel_root_sha256) == (
        ("ab" * 32, "none") if kind == "sev-snp" else ("none", "ab" * 32)
    )
    if gpus:
        assert roots.nvidia_rim_root_spki_sha256 == "22" * 32
        assert (policy.gpus.gpus, policy.gpus.modes) == (gpus, ("SPT",) if gpus == 1 else ("MPT",))
    else:
        assert (policy.gpu, roots.nvidia_device_root_spki_sha256) == ("none", "none")
    assert policy.not_after_unix_s > time.time()
    assert path.stat().st_mode & 0o777 == 0o600
