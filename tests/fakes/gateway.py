"""A gateway on a real socket inside the test's loop, and a client that sees the bytes as they are."""

import asyncio
import contextlib
import io
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from confide_gateway.app import Gateway
from confide_gateway.judge import load_judge
from confide_gateway.keys import KeyFile, load_keys, with_key, write_keys
from confide_gateway.serve import targets_of
from confide_gateway.server import Server
from confide_gateway.settings import GatewaySettings, load_settings
from confide_protocol import labels

from tests.fakes.node import policy_toml

KEY = "confide-" + "k" * 43
SECRET = "s" * 43
SEALED = (("content-type", labels.MEDIA_REQUEST),)


@dataclass
class Running:
    """A gateway that listens."""

    gateway: Gateway
    settings: GatewaySettings
    folder: Path
    port: int
    server: Server
    log: io.StringIO

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    async def ready(self, *, within_s: float = 5.0) -> None:
        async with asyncio.timeout(within_s):
            while (await ask(self.port, "GET", "/readyz", key=None)).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


def write_files(folder: Path, urls: list[str], extra: str = "", tables: str = "") -> Path:
    """Write settings, policy, secret and one API key `test`; `extra` goes above the tables."""
    (folder / "policy.toml").write_text(policy_toml())
    secret = folder / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    keys = folder / "keys.toml"
    write_keys(keys, with_key(KeyFile(), keys, "test", KEY, 4))
    enclaves = "".join(f'[[enclaves]]\nurl = "{url}"\nsecret_file = "secret"\n' for url in urls)
    config = folder / "gateway.toml"
    config.write_text(
        f'listen = "127.0.0.1:0"\npolicy = "policy.toml"\napi_keys_file = "keys.toml"\nallow_simulated = true\n'
        f"{extra}\n{enclaves}{tables}"
    )
    return config


@contextlib.asynccontextmanager
async def running(folder: Path, urls: list[str], extra: str = "", tables: str = "") -> AsyncIterator[Running]:
    """Run a gateway over these nodes until the block ends; do not wait for readiness."""
    settings = load_settings(write_files(folder, urls, extra, tables))
    log = io.StringIO()
    logger = structlog.wrap_logger(structlog.PrintLogger(log), processors=[structlog.processors.JSONRenderer()])
    gateway = Gateway(
        settings,
        targets_of(settings, folder),
        load_keys(folder / "keys.toml"),
        load_judge(folder / "policy.toml", allow_simulated=True),
        logger,
    )
    gateway.start(folder / "keys.toml")
    listener = socket.create_server(("127.0.0.1", 0))
    listening = asyncio.Event()
    server = Server(gateway, settings.limits, listening.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await listening.wait()
    try:
        yield Running(gateway, settings, folder, listener.getsockname()[1], server, log)
    finally:
        server.should_exit = True
        gateway.cut()
        await serving
        await gateway.aclose()


@dataclass
class Reply:
    """What came back; `whole` is False where the answer was cut off."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False


async def ask(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    key: str | None = KEY,
    headers: tuple[tuple[str, str], ...] = (),
    head_only: bool = False,
) -> Reply:
    """Send one request on a connection of its own and read until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(method, path, body, key=key, headers=headers))
        return await read_reply(reader)
    finally:
        writer.close()


async def post(port: int, path: str, body: bytes = b"", **options) -> Reply:
    """Send a sealed request."""
    return await ask(port, "POST", path, body, headers=SEALED, **options)


def request(
    method: str,
    path: str,
    body: bytes = b"",
    *,
    key: str | None = KEY,
    headers: tuple[tuple[str, str], ...] = (),
    length: bool = True,
) -> bytes:
    fields = [("host", "gateway"), ("connection", "close"), *headers]
    if key is not None:
        fields.append(("authorization", f"Bearer {key}"))
    if length:
        fields.append(("content-length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Read one answer up to the end of the connection; a cut one is told from a whole one."""
    reply = Reply()
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        reply.status = int(head[0].split(" ")[1])
        reply.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        assert len(reply.headers) == len(head) - 3, "a field came twice, which browsers refuse"
        if reply.headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                reply.body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        else:
            reply.body = await reader.readexactly(int(reply.headers.get("content-length", 0)))
        reply.whole = True
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        pass
    return reply
