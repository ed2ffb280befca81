"""What has to lie ready before a server is started: a folder of its own, an address, a key."""

import os
import secrets
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from confide_protocol.errors import ConfigError

from confide_enclave.engine import ModelCard
from confide_enclave.remote.process import Launch
from confide_enclave.remote.servers import SERVERS, Start
from confide_enclave.remote.settings import MAX_SOCKET_BYTES, UNIX, RemoteSettings

_KEY_FILE: Final = "key.yaml"


def prepare(
    settings: RemoteSettings, card: ModelCard, weights: Path, verify: Callable[[], None]
) -> tuple[str, str, str, Launch]:
    """Return the folder, the url, the key, and how to start the server.

    A server without unix sockets gets a port of loopback that is free now; who takes it first within this machine
    would get the key, and prompts. Raises: ConfigError where the temporary folder's path is too long for a socket.
    """
    server, key = SERVERS[settings.server], secrets.token_hex(32)
    folder = tempfile.mkdtemp(prefix="confide-engine-")  # 0700: nobody else finds the socket
    address = os.path.join(folder, server.socket) if server.socket else str(_free_port())
    url = UNIX + address if server.socket else f"http://127.0.0.1:{address}"
    if server.socket and (length := len(os.fsencode(address))) > MAX_SOCKET_BYTES:
        os.rmdir(folder)
        remedy = f"is too long: the server's socket would have a path of {length} bytes, of {MAX_SOCKET_BYTES}"
        raise ConfigError(tempfile.gettempdir(), "TMPDIR", remedy)
    environment, key_file = server.options.make_environment(os.environ, settings.environment), ""
    if server.key_variable:
        environment[server.key_variable] = key  # not among the arguments, which every process may read
    else:
        key_file = os.path.join(folder, _KEY_FILE)
        with open(key_file, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(f"api-key: {key}\n")
    context_tokens = card.context_tokens + server.spare_tokens
    start = Start(str(weights), card.name, address, context_tokens, settings.max_requests, key_file)
    argv = (*settings.command, *settings.arguments, *server.own(start))
    return folder, url, key, Launch(argv, address if server.socket else "", environment, verify)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
