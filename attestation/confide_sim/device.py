"""`confide-sim`: a SIMULATED SEV-SNP device on a unix socket; the enclave asks it and never holds its keys.

One request a connection: exactly 64 bytes of report data. Reply: u32 length (big endian), then CBOR
`{"report": 1184 bytes, "vek": DER, "ask": DER, "ark": DER}`.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import socketserver
import sys
import time
from pathlib import Path
from types import FrameType

import click
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.snp.abi import Product
from confide_protocol import cbor

REPORT_DATA_BYTES = 64
REQUEST_TIMEOUT_S = 5.0


class _Request(socketserver.BaseRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        """Answer one connection; a slow, short or talkative one is closed without an answer."""
        connection: socket.socket = self.request
        connection.settimeout(REQUEST_TIMEOUT_S)
        with contextlib.suppress(OSError):
            report_data = b""
            while len(report_data) < REPORT_DATA_BYTES:
                part = connection.recv(REPORT_DATA_BYTES - len(report_data))
                if not part:
                    return
                report_data += part
            reply = cbor.encode({"report": self.server.amd.sign_report(report_data), **self.server.certificates})
            connection.sendall(len(reply).to_bytes(4, "big") + reply)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str, amd: SimulatedAmd) -> None:
        self.amd = amd
        self.certificates = {"vek": amd.vek, "ask": amd.ask, "ark": amd.ark}
        super().__init__(path, _Request)


@click.command()
@click.option(
    "--socket", "socket_path", required=True, type=click.Path(path_type=Path), help="Where to listen (0600)."
)
@click.option(
    "--endorsements-dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write ark.der, ask.der and vek.der (public).",
)
@click.option("--product", type=click.Choice([p.value for p in Product]), default="Genoa", show_default=True)
@click.option(
    "--measurement", metavar="HEX96", default="00" * 48, help="Launch measurement that reports shall carry."
)
def main(socket_path: Path, endorsements_dir: Path, product: str, measurement: str) -> None:
    """Serve SIMULATED SEV-SNP attestation reports from a hierarchy made anew now.

    Prints one line of JSON when ready: {"ready": true, "ark_sha256": HEX, "measurement": HEX}.
    Nothing it signs is worth anything outside a policy that pins this very root.
    """
    try:
        image = bytes.fromhex(measurement)
    except ValueError:
        image = b""
    if len(image) != 48:
        _stop("--measurement: needs 96 hex digits")
    chip_id = secrets.token_bytes(8 if product == Product.TURIN else 64)
    amd = SimulatedAmd.make(int(time.time()), product=product, measurement=image, chip_id=chip_id)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        endorsements_dir.mkdir(parents=True, exist_ok=True)
        server = _listen(socket_path, amd)
        for name, certificate in server.certificates.items():
            (endorsements_dir / f"{name}.der").write_bytes(certificate)
    except OSError as fault:
        _stop(f"{fault.filename or socket_path}: {fault.strerror or fault}; choose another path")
    try:
        print(
            json.dumps({"ready": True, "ark_sha256": amd.ark_sha256.hex(), "measurement": image.hex()}), flush=True
        )
        server.serve_forever(poll_interval=0.2)
    finally:
        server.server_close()
        socket_path.unlink(missing_ok=True)


def _listen(path: Path, amd: SimulatedAmd) -> _Server:
    """Bind the socket for its owner only; a socket that nobody serves any more is replaced."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                _stop(f"{path}: is served by another process; choose another path")
        path.unlink()
    mask = os.umask(0o177)
    try:
        return _Server(str(path), amd)
    finally:
        os.umask(mask)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _stop(message: str) -> None:
    click.echo(f"confide-sim: {message}", err=True)
    sys.exit(2)
