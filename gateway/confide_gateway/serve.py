"""From a settings file to a listening gateway."""

import gc
import json
import os
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from confide_protocol.errors import ConfigError

from confide_gateway.app import Gateway
from confide_gateway.forward import Target
from confide_gateway.judge import load_judge
from confide_gateway.keys import load_keys
from confide_gateway.logs import make_log
from confide_gateway.server import Server
from confide_gateway.settings import Enclave, GatewaySettings, Limits, load_settings, read_file, read_secret

BACKLOG = 1024


def serve(path: Path) -> None:
    """Serve until SIGTERM or SIGINT; prints one JSON line once it listens. Raises: ConfigError."""
    settings = load_settings(path)
    folder = path.parent
    judge = load_judge(folder / settings.policy, allow_simulated=settings.allow_simulated)
    api_keys_file = folder / settings.api_keys_file
    api_keys = load_keys(api_keys_file)
    targets = targets_of(settings, folder)
    log = make_log(settings.log.level)

    async def run(listener: socket.socket) -> None:
        gateway = Gateway(settings, targets, api_keys, judge, log)
        gateway.start(api_keys_file)
        gc.freeze()  # what is there now stays: collections on the hot path need not look at it
        try:
            await Server(gateway, settings.limits, lambda: _announce(listener)).serve(sockets=[listener])
        finally:
            await gateway.aclose()

    with _bind(settings, path) as listener:
        uvloop.run(run(listener))


def targets_of(settings: GatewaySettings, folder: Path) -> list[Target]:
    """Read the secrets that the settings name. Raises: ConfigError."""
    return [_target(enclave, folder, settings.limits) for enclave in settings.enclaves]


def _target(enclave: Enclave, folder: Path, limits: Limits) -> Target:
    parts = urlsplit(enclave.url)
    tls = None
    if parts.scheme == "https":
        tls = ssl.create_default_context()
        if enclave.ca_file is not None:
            ca_file = folder / enclave.ca_file
            try:
                tls = ssl.create_default_context(cadata=read_file(ca_file, "ca_file").decode("ascii"))
            except (ssl.SSLError, ValueError):
                raise ConfigError(str(ca_file), "ca_file", "holds no PEM certificate; give the CA's") from None
    return Target(
        host=parts.hostname or "",
        port=parts.port or (443 if tls else 80),
        authority=parts.netloc,
        secret=read_secret(folder / enclave.secret_file),
        limits=limits,
        tls=tls,
    )


def _bind(settings: GatewaySettings, path: Path) -> socket.socket:
    host, port = settings.address
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as fault:
        why = os.strerror(fault.errno) if fault.errno and fault.errno > 0 else fault.strerror
        raise ConfigError(
            str(path), "listen", f"cannot listen on {settings.listen} ({why}); stop what holds it or choose another"
        ) from None


def _announce(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(json.dumps({"ready": True, "url": f"http://{shown}:{port}"}), flush=True)
