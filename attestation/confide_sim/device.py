"""`confide-sim`: a SIMULATED machine's devices on a unix socket; the enclave asks them and never holds their keys.

One request a connection, both ways u32 length (big endian), then deterministic CBOR of one map:
    {"report_data": 64 bytes}   -> {"kind": "sev-snp" | "tdx", "report": bytes}
    {"gpu_nonce": 32 bytes}     -> {"gpus": [{"architecture", "report", "certificate_chain"}, …]}
    {"gpu_states": true}        -> {"gpus": [{what NVML says of each}, …]}
Anything else is closed without an answer.
"""

import contextlib
import json
import os
import signal
import socket
import socketserver
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click
from confide_attestation.evidence import CpuKind, encode_endorsements
from confide_attestation.snp.abi import Product
from confide_protocol import cbor
from confide_protocol.errors import Malformed

from confide_sim.machine import MAX_GPUS, MEASUREMENT_BYTES, SimulatedMachine

KINDS = (CpuKind.SEV_SNP, CpuKind.TDX)
REPORT_DATA_BYTES = 64
NONCE_BYTES = 32
MAX_REQUEST_BYTES = 256
REQUEST_TIMEOUT_S = 5.0


def answer(machine: SimulatedMachine, request: bytes) -> bytes | None:
    """Answer one request; None for what is none."""
    try:
        asked = cbor.decode(request, max_bytes=MAX_REQUEST_BYTES)
    except Malformed:
        return None
    if not isinstance(asked, dict) or len(asked) != 1:
        return None
    ((name, value),) = asked.items()
    said: dict[str, Any] | None = None
    if name == "report_data" and isinstance(value, bytes) and len(value) == REPORT_DATA_BYTES:
        said = machine.quote(value)
    elif name == "gpu_nonce" and isinstance(value, bytes) and len(value) == NONCE_BYTES:
        said = machine.gpu_reports(value)
    elif name == "gpu_states" and value is True:
        said = machine.gpu_states()
    return None if said is None else cbor.encode(said)


class _Request(socketserver.BaseRequestHandler):
    server: "DeviceServer"

    def handle(self) -> None:
        """Answer one connection; a slow, short or talkative one is closed without an answer."""
        connection: socket.socket = self.request
        connection.settimeout(REQUEST_TIMEOUT_S)
        with contextlib.suppress(OSError):
            length = int.from_bytes(_exactly(connection, 4))
            if length > MAX_REQUEST_BYTES:
                return
            reply = answer(self.server.machine, _exactly(connection, length))
            if reply is not None:
                connection.sendall(len(reply).to_bytes(4) + reply)


class DeviceServer(socketserver.ThreadingUnixStreamServer):
    """Serves one machine on a socket for its owner only; a socket that nobody serves any more is replaced."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, machine: SimulatedMachine) -> None:
        self.machine = machine
        free(path)
        mask = os.umask(0o177)
        try:
            super().__init__(str(path), _Request)
        finally:
            os.umask(mask)


class InUse(OSError):
    """The socket has a server already."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: is served by another process")


def free(path: Path) -> None:
    """Remove a socket that nobody serves any more. Raises: InUse, OSError."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise InUse(path)
        path.unlink()


@click.command()
@click.option(
    "--socket", "socket_path", required=True, type=click.Path(path_type=Path), help="Where to listen (0600)."
)
@click.option(
    "--endorsements-dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write the public certificates, and endorsements.cbor for the enclave.",
)
@click.option(
    "--platform", type=click.Choice([kind.value for kind in KINDS]), default=KINDS[0].value, show_default=True
)
@click.option(
    "--gpus",
    type=click.IntRange(0, MAX_GPUS),
    default=0,
    show_default=True,
    metavar=f"0..{MAX_GPUS}",
    help="Hopper GPUs.",
)
@click.option(
    "--product",
    type=click.Choice([p.value for p in Product]),
    default="Genoa",
    show_default=True,
    help="Of sev-snp.",
)
@click.option("--measurement", metavar="HEX96", help="Launch measurement, on tdx MRTD.  [default: zeros; a digest]")
def main(
    socket_path: Path, endorsements_dir: Path, platform: str, gpus: int, product: str, measurement: str | None
) -> None:
    """Serve SIMULATED evidence of a CPU and its GPUs, from hierarchies made anew now.

    Prints one line of JSON when ready: {"ready": true, and what a policy needs: roots and reference values}.
    Nothing it signs is worth anything outside a policy that pins these very roots.
    """
    image = None
    if measurement is not None:
        try:
            image = bytes.fromhex(measurement)
        except ValueError:
            image = b""
        if len(image) != MEASUREMENT_BYTES:
            _stop("--measurement: needs 96 hex digits")
    machine = SimulatedMachine.make(
        int(time.time()), kind=CpuKind(platform), measurement=image, product=product, gpus=gpus
    )
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        free(socket_path)
        endorsements_dir.mkdir(parents=True, exist_ok=True)
        # Whoever sees the socket finds the files.
        files = {**machine.certificates, "endorsements.cbor": encode_endorsements(machine.endorsements)}
        for name, data in files.items():
            (endorsements_dir / name).write_bytes(data)
        server = DeviceServer(socket_path, machine)
    except InUse as fault:
        _stop(f"{fault}; choose another path")
    except OSError as fault:
        _stop(f"{fault.filename or socket_path}: {fault.strerror or fault}; choose another path")
    try:
        print(json.dumps({"ready": True, **machine.announce()}), flush=True)
        server.serve_forever(poll_interval=0.2)
    finally:
        server.server_close()
        socket_path.unlink(missing_ok=True)


def _exactly(connection: socket.socket, length: int) -> bytes:
    """Read so many bytes. Raises: OSError at the end of the stream."""
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _stop(message: str) -> None:
    click.echo(f"confide-sim: {message}", err=True)
    sys.exit(2)
