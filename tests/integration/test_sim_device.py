"""The simulated device as a process: ready line, one report a connection, and a clean end."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.policy import load_policy
from confide_attestation.policy_text import simulated_policy
from confide_attestation.result import Verdict
from confide_attestation.snp.ids import SnpCheck
from confide_attestation.snp.judge import verify_snp
from confide_protocol import cbor

COMMAND = Path(sys.executable).with_name("confide-sim")
MEASUREMENT = "ab" * 48


@dataclass(frozen=True)
class Device:
    process: subprocess.Popen[str]
    socket_path: Path
    folder: Path
    ready: dict[str, str | bool]

    def ask(self, request: bytes, *, end: bool = False) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.socket_path))
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(65_536):
                parts.append(part)
            return b"".join(parts)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("sim")
    args = [COMMAND, "--socket", folder / "s", "--endorsements-dir", folder / "e", "--measurement", MEASUREMENT]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield Device(process, folder / "s", folder / "e", ready)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert not (folder / "s").exists()


def test_report_verifies_under_the_announced_root(device: Device) -> None:
    """What comes over the socket is accepted by a policy that pins the announced root and measurement."""
    report_data = os.urandom(64)
    reply = device.ask(report_data)
    assert int.from_bytes(reply[:4], "big") == len(reply) - 4
    tree = cbor.decode(reply[4:])
    assert set(tree) == {"report", "vek", "ask", "ark"}
    now = int(time.time())
    policy = simulated_policy(
        ark_sha256=bytes.fromhex(str(device.ready["ark_sha256"])),
        measurement=bytes.fromhex(MEASUREMENT),
        manifest_digest=bytes(32),
        not_after_unix_s=now + 3600,
    )
    result = verify_snp(
        tree["report"],
        SnpEndorsements(tree["vek"], tree["ask"], tree["ark"]),
        now_unix_s=now,
        policy=load_policy(policy.encode(), "policy.toml"),
        allow_simulated=True,
    )
    assert result.failed == ()
    assert result.verdict is Verdict.ACCEPTED
    assert result.claims["cpu0"]["report_data"] == report_data.hex()
    for name in ("vek", "ask", "ark"):
        assert (device.folder / f"{name}.der").read_bytes() == tree[name]
    bare = verify_snp(tree["report"], SnpEndorsements(tree["vek"]), now_unix_s=now)
    assert SnpCheck.VEK_SIG in {check.id for check in bare.failed}


def test_socket_is_its_owners_alone(device: Device) -> None:
    """Mode 0600."""
    assert stat.S_IMODE(device.socket_path.stat().st_mode) == 0o600


def test_short_request_gets_no_answer(device: Device) -> None:
    """Fewer than 64 bytes: the connection is closed, and the device lives on."""
    assert device.ask(b"x" * 63, end=True) == b""
    assert len(device.ask(bytes(64))) > 1184


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--measurement", "abc"), "--measurement"),
        (("--socket", "/nowhere/s"), "/nowhere/s"),
        (("--socket", "x" * 200), "x" * 200),
    ],
)
def test_bad_setting_is_one_line_and_exit_2(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    """A fault names what to mend."""
    settings = {"--socket": str(tmp_path / "s"), "--endorsements-dir": str(tmp_path / "e")} | dict([change])
    done = subprocess.run(
        [COMMAND, *(part for pair in settings.items() for part in pair)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_second_device_on_a_served_socket_is_refused(device: Device, tmp_path: Path) -> None:
    """A socket in use is never taken over."""
    done = subprocess.run(
        [COMMAND, "--socket", device.socket_path, "--endorsements-dir", tmp_path],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "served by another process" in done.stderr
