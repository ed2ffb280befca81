"""The simulated devices as a process: ready line, one answer a connection, and a clean end."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confide_attestation.evidence import GpuEvidence, SnpEndorsements, parse_endorsements
from confide_attestation.nvidia.judge_set import judge_gpus
from confide_attestation.policy import load_policy
from confide_attestation.policy_text import SimulatedGpus, simulated_policy, simulated_tdx_policy
from confide_attestation.result import Verdict
from confide_attestation.snp.ids import SnpCheck
from confide_attestation.snp.judge import verify_snp
from confide_attestation.tdx.judge import verify_tdx
from confide_protocol import cbor

COMMAND = Path(sys.executable).with_name("confide-sim")
MEASUREMENT = "ab" * 48


@dataclass(frozen=True)
class Device:
    process: subprocess.Popen[str]
    socket_path: Path
    folder: Path
    ready: dict[str, Any]

    def send(self, request: bytes, *, end: bool = False) -> bytes:
        """Return everything that the device says to these bytes."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.socket_path))
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
            parts = []
            # What the device did not care to read resets the connection.
            with suppress(ConnectionResetError):
                while part := connection.recv(65_536):
                    parts.append(part)
            return b"".join(parts)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        said = self.send(framed(cbor.encode(request)))
        assert int.from_bytes(said[:4]) == len(said) - 4
        tree: dict[str, Any] = cbor.decode(said[4:])
        return tree

    def pin(self, field: str) -> bytes:
        return bytes.fromhex(self.ready[field])


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


@pytest.fixture(scope="module", params=["sev-snp", "tdx"])
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """Each platform, with two GPUs."""
    folder = tmp_path_factory.mktemp("sim")
    args = [COMMAND, "--socket", folder / "s", "--endorsements-dir", folder / "e", "--measurement", MEASUREMENT]
    args += ["--platform", request.param, "--gpus", "2"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield Device(process, folder / "s", folder / "e", ready)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert not (folder / "s").exists()


def policy_text(device: Device, now: int) -> str:
    """Write the policy that the ready line is enough for."""
    roots = device.pin("nvidia_device_root_spki_sha256"), device.pin("nvidia_rim_root_spki_sha256")
    common: dict[str, Any] = {
        "manifest_digest": bytes(32),
        "not_after_unix_s": now + 3600,
        "gpus": SimulatedGpus(device.ready["gpus"], *roots, device.ready["driver"], device.ready["firmware"]),
    }
    if device.ready["platform"] == "sev-snp":
        return simulated_policy(
            ark_sha256=device.pin("amd_ark_sha256"), measurement=device.pin("measurement"), **common
        )
    rtmrs = [bytes.fromhex(value) for value in device.ready["rtmrs"]]
    return simulated_tdx_policy(
        root_sha256=device.pin("intel_root_sha256"), mr_td=device.pin("mr_td"), rtmrs=rtmrs, **common
    )


def test_the_cpus_quote_is_accepted_under_what_was_announced(device: Device) -> None:
    """What comes over the socket satisfies a policy that pins the announced root and measurement."""
    report_data = os.urandom(64)
    reply = device.ask({"report_data": report_data})
    assert set(reply) == {"kind", "report"}
    assert reply["kind"] == device.ready["platform"]
    now = int(time.time())
    policy = load_policy(policy_text(device, now).encode(), "policy.toml")
    offered = parse_endorsements((device.folder / "endorsements.cbor").read_bytes())
    options: dict[str, Any] = {"now_unix_s": now, "policy": policy, "allow_simulated": True}
    if offered.snp is not None:
        result = verify_snp(reply["report"], offered.snp, **options)
        for name in ("vek", "ask", "ark"):
            assert (device.folder / f"{name}.der").read_bytes() == getattr(offered.snp, name)
        bare = verify_snp(reply["report"], SnpEndorsements(offered.snp.vek), now_unix_s=now)
        assert SnpCheck.VEK_SIG in {check.id for check in bare.failed}
    else:
        assert offered.tdx is not None
        result = verify_tdx(reply["report"], offered.tdx.collateral, **options)
    assert result.failed == ()
    assert result.verdict is Verdict.ACCEPTED
    assert result.claims["cpu0"]["report_data"] == report_data.hex()


def test_the_gpus_reports_are_accepted_under_what_was_announced(device: Device) -> None:
    """Each of two GPUs answers the nonce; manifests and revocation answers lie in the folder."""
    nonce = os.urandom(32)
    found = [GpuEvidence(**gpu) for gpu in device.ask({"gpu_nonce": nonce})["gpus"]]
    now = int(time.time())
    policy = load_policy(policy_text(device, now).encode(), "policy.toml")
    offered = parse_endorsements((device.folder / "endorsements.cbor").read_bytes())
    part = judge_gpus(found, offered.nvidia, policy.gpus, policy.roots, now_unix_s=now, nonce=nonce)
    assert [check for check in part.checks if check.outcome == "FAIL"] == []
    assert part.holds
    assert set(part.claims) == {"gpu0", "gpu1"}
    assert [(device.folder / f"gpu{n}.pem").read_bytes() for n in (0, 1)] == [
        gpu.certificate_chain for gpu in found
    ]
    # A driver's state is told apart from what the GPUs sign.
    states = device.ask({"gpu_states": True})["gpus"]
    assert [(state["cc_on"], state["devtools_on"]) for state in states] == [(True, False)] * 2
    assert {state["driver_version"] for state in states} == {device.ready["driver"]}


def test_socket_is_its_owners_alone(device: Device) -> None:
    """Mode 0600."""
    assert stat.S_IMODE(device.socket_path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\0\0",
        b"x" * 64,
        framed(b""),
        framed(b"garbage"),
        framed(cbor.encode([])),
        framed(cbor.encode({})),
        framed(cbor.encode({"report_data": bytes(63)})),
        framed(cbor.encode({"gpu_nonce": bytes(33)})),
        framed(cbor.encode({"gpu_states": False})),
        framed(cbor.encode({"report_data": bytes(64), "gpu_nonce": bytes(32)})),
        framed(cbor.encode({"key": bytes(32)})),
        framed(cbor.encode({"report_data": bytes(512)})),
    ],
)
def test_what_is_no_request_gets_no_answer(device: Device, request_bytes: bytes) -> None:
    """The connection is closed, and the device lives on."""
    assert device.send(request_bytes, end=True) == b""
    assert device.ask({"report_data": bytes(64)})["report"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--measurement", "abc"), "--measurement"),
        (("--measurement", "00"), "--measurement"),
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
