"""An enclave in a process of its own, over real sockets."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confide_attestation.evidence import parse_bundle
from confide_protocol import labels
from confide_protocol.keyset import parse_keyset
from confide_protocol.statement import parse_statement

from tests.unit.enclave.support import CHAT, HttpAnswer, Sealed

SECRET = "s" * 32
ROOT = Path(__file__).resolve().parents[2]
STREAM = {**CHAT, "stream": True}


class Process:
    """One scripted enclave; everything that it printed and logged can be read."""

    def __init__(self, folder: Path, *, step_s: float = 0.0, limits: str = "") -> None:
        config = folder / "enclave.toml"
        config.write_text(
            'gateway_secret_file = "x"\nplatform = "simulated-sev-snp"\ndevice_socket = "x"\n[limits]\n' + limits
        )
        self.stderr = (folder / "stderr").open("w+")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.scripted_enclave", str(config), SECRET, str(step_s)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
        )
        self.ready = json.loads(self.popen.stdout.readline())
        self.port = int(self.ready["url"].rpartition(":")[2])
        self.clock = time.time

    def line(self) -> dict:
        return json.loads(self.popen.stdout.readline())

    def logged(self) -> list[dict]:
        self.stderr.seek(0)
        return [json.loads(line) for line in self.stderr]

    def start(self, method: str, path: str, body: bytes | None = None) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"authorization": f"Bearer {SECRET}"}
        if body is not None:
            headers["content-type"] = labels.MEDIA_REQUEST
        connection.request(method, path, body, headers)
        return connection

    def seal(self, body: dict, **options) -> Sealed:
        connection = self.start("GET", f"/evidence?nonce={os.urandom(32).hex()}")
        evidence, _ = parse_bundle(connection.getresponse().read())
        connection.close()
        self.keyset = parse_keyset(evidence.keyset)
        return Sealed(self, parse_statement(evidence.statement).digest, body, **options)

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(10)


@pytest.fixture
def launch(tmp_path):
    """Start enclaves that end with the test."""
    started = []

    def start(**options) -> Process:
        started.append(Process(tmp_path, **options))
        return started[-1]

    yield start
    for process in started:
        process.popen.kill()
        process.popen.wait()
        process.popen.stdout.close()
        process.stderr.close()


def read(connection: http.client.HTTPConnection) -> HttpAnswer:
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    answer = HttpAnswer(response.status, headers, response.read())
    connection.close()
    return answer


def test_a_process_serves_and_ends_cleanly(launch):
    """Ready line, health, a sealed stream, core dumps off, logs as JSON lines, exit 0 on SIGTERM."""
    process = launch()
    assert process.ready["ready"] is True
    assert read(process.start("GET", "/healthz")).body == b'{"status":"ok"}'
    sealed = process.seal(STREAM)
    assert sealed.keyset.digest.hex() == process.ready["keyset"]
    assert sealed.keyset.manifest_digest.hex() == process.ready["manifest"]
    opened = sealed.open(read(process.start("POST", sealed.target, sealed.whole())))
    assert opened.text == "".join(f" word{n}" for n in range(1000))
    if sys.platform == "linux":
        limits = Path(f"/proc/{process.popen.pid}/limits").read_text()
        assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]
    assert process.stop() == 0
    assert [line["status"] for line in process.logged() if line["event"] == "request"] == [200, 200, 200]


def test_the_engine_stops_for_a_client_that_hangs_up(launch):
    """Closing the socket mid-stream ends generation long before its end."""
    process = launch(step_s=0.01)
    sealed = process.seal(STREAM)
    started = time.monotonic()
    connection = process.start("POST", sealed.target, sealed.whole())
    connection.getresponse().read(600)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert process.line() == {"ended": 1}
    assert time.monotonic() - started < 5
    assert process.stop() == 0
    assert process.logged()[-1]["error"] == "client_left"


def test_sigterm_ends_a_stream_sealed(launch):
    """After the grace the client gets a signed end; nobody new is let in; the process exits with 0."""
    process = launch(step_s=0.01, limits="shutdown_grace_s = 0.5")
    sealed = process.seal(STREAM)
    connection = process.start("POST", sealed.target, sealed.whole())
    response = connection.getresponse()
    first = response.read(600)
    started = time.monotonic()
    process.popen.send_signal(signal.SIGTERM)
    rest = response.read()
    opened = sealed.open(HttpAnswer(200, {"content-type": labels.MEDIA_RESPONSE}, first + rest))
    assert b'"code":"shutting_down"' in opened.body
    assert opened.claims.outcome == "aborted"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", process.port), timeout=1)
    assert process.popen.wait(5) == 0
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    "head", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: y"], ids=["none", "part", "most"]
)
def test_a_slow_head_is_cut_off(launch, head):
    """A connection that does not finish its head within `header_timeout_s` is closed."""
    process = launch(limits="header_timeout_s = 0.3")
    with socket.create_connection(("127.0.0.1", process.port), timeout=5) as peer:
        peer.sendall(head)
        started = time.monotonic()
        assert not _until_closed(peer)
        assert 0.1 < time.monotonic() - started < 3


def test_a_huge_head_is_cut_off(launch):
    """A head over the limit is never kept."""
    process = launch()
    with socket.create_connection(("127.0.0.1", process.port), timeout=5) as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 60_000)
        assert not _until_closed(peer)
    assert read(process.start("GET", "/healthz")).status == 200


@pytest.mark.parametrize("piece", [b"x: y\r\n" * 1000, b"y" * 6000], ids=["many", "one"])
def test_endless_trailers_are_cut_off(launch, piece):
    """What follows a body's last chunk is bounded like the body, for callers without the secret too."""
    process = launch(limits="max_request_bytes = 1024")
    with socket.create_connection(("127.0.0.1", process.port), timeout=5) as peer:
        peer.sendall(b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            peer.sendall(piece * 1000)


def test_connections_are_reused(launch):
    """Keep-alive works across requests: a head's clock starts with the head."""
    process = launch(limits="header_timeout_s = 0.3")
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=5)
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        local = connection.sock.getsockname()
        time.sleep(0.4)
        assert connection.sock.getsockname() == local
    connection.close()


def _until_closed(peer: socket.socket) -> bytes:
    try:
        return peer.recv(4096)
    except ConnectionResetError:
        return b""
