"""From options to a listening proxy: on loopback or on a socket for its owner alone, and nowhere else."""

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h11
import httpx2
import uvicorn
from confide_protocol.errors import ConfigError
from uvicorn.protocols.http.h11_impl import H11Protocol

from confide.policy_memory import default_path
from confide.proxy.app import Bounds, Cut, ProxyApp
from confide.proxy.guard import Guard
from confide.proxy.page import SERVICE
from confide.relay import Relay

BACKLOG = 256
ASK_TIMEOUT_S = 2.0
TOKEN_BYTES = 32
MAX_TOKEN_BYTES = 4096
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Place:
    """Where to listen: a host and port of loopback, or the path of a socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None


def read_place(listen: str | None, path: Path | None) -> Place:
    """Read `HOST:PORT` or take a socket's path. Raises: ConfigError for a place that others can reach."""
    if path is not None:
        return Place(path=path)
    host, _, port = (listen or "").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or int(port) > 65535 or not host:
        raise ConfigError(listen or "", "--listen", 'needs "127.0.0.1:PORT", "localhost:PORT" or "[::1]:PORT"')
    if host not in LOOPBACK:
        raise ConfigError(
            host,
            "--listen",
            "is not loopback: what comes to the proxy is in clear, so only this machine may; use 127.0.0.1",
        )
    return Place(host, int(port))


@contextmanager
def listening(place: Place) -> Iterator[socket.socket]:
    """Bind and listen. Raises: ConfigError in one line, also where a proxy is there already."""
    if place.path is not None:
        with _bound_path(place.path) as listener:
            yield listener
        return
    try:
        family = socket.AF_INET6 if place.host == "::1" else socket.AF_INET
        host = "127.0.0.1" if place.host == "localhost" else place.host
        listener = socket.create_server((host, place.port), family=family, backlog=BACKLOG)
    except OSError as fault:
        url = f"http://{'[::1]' if place.host == '::1' else place.host}:{place.port}"
        who = _who_listens(httpx2.HTTPTransport(), url)
        raise ConfigError(
            f"{place.host}:{place.port}", "--listen", f"{who or os.strerror(fault.errno or 0)}; {_FREE_PORT}"
        ) from None
    with listener:
        yield listener


_FREE_PORT = "stop it, or choose another port (0 takes any free one)"


@contextmanager
def _bound_path(path: Path) -> Iterator[socket.socket]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        made = path.stat()
    except OSError as fault:
        listener.close()
        why = fault.strerror or str(fault)
        raise ConfigError(
            str(path), "--socket", f"cannot be made ({why}); name a path in a folder of yours"
        ) from None
    except ConfigError:
        listener.close()
        raise
    try:
        yield listener
    finally:
        listener.close()
        with suppress(OSError):
            if path.stat().st_ino == made.st_ino:
                path.unlink()


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on any more. Raises: ConfigError where somebody does, or it is none."""
    try:
        kind = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind.st_mode):
        raise ConfigError(str(path), "--socket", "exists and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(ASK_TIMEOUT_S)
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()  # nobody listens; any other fault may be that of a proxy that is busy
            return
    who = _who_listens(httpx2.HTTPTransport(uds=str(path)), "http://localhost")
    raise ConfigError(
        str(path), "--socket", f"{who or 'another program listens there'}; stop it, or name another path"
    )


def _who_listens(transport: httpx2.HTTPTransport, url: str) -> str:
    with suppress(httpx2.HTTPError, ValueError, AttributeError):
        client = httpx2.Client(transport=transport, timeout=ASK_TIMEOUT_S, trust_env=False)
        with client, client.stream("GET", url + "/healthz") as response:
            head = next(response.iter_bytes(4096), b"")
            if json.loads(head).get("service") == SERVICE:
                return "a confide proxy listens there already"
    return ""


def local_token(path: Path | None) -> tuple[str, Path]:
    """Read the token that callers show, or make one in a file for its owner alone. Raises: ConfigError."""
    path = path or default_path().with_name("proxy.token")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError), open(path, "x", opener=_private) as file:
            file.write(f"confide-local-{secrets.token_urlsafe(TOKEN_BYTES)}\n")
        token = path.read_bytes()[: MAX_TOKEN_BYTES + 1].decode("ascii").strip()
    except OSError as fault:
        raise ConfigError(
            str(path), "--token-file", f"cannot be read or made ({fault.strerror}); name another path"
        ) from None
    except UnicodeDecodeError:
        token = ""
    if len(token) < TOKEN_BYTES or len(token) > MAX_TOKEN_BYTES or not token.isprintable():
        raise ConfigError(str(path), "--token-file", "holds no token; remove it, and it is made anew")
    return token, path


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def serve(relay: Relay, place: Place, tokens: tuple[str, ...], token_file: Path | None, bounds: Bounds) -> None:
    """Serve until SIGTERM or SIGINT; print one JSON line once the proxy listens.

    With a gateway's key of its own the enclave is verified before that; without one, when the first caller brings a
    key, before that call is sealed.
    Raises: ConfigError; what keeps the enclave from being verified, before anything else is sent.
    """
    with listening(place) as listener:
        if relay.authorize(None):
            relay.verify()  # a wrong URL, a server that is none of ours, a refused enclave: said now, in one line
        if place.path is None:
            port = listener.getsockname()[1]
            guard = Guard.on_port(port, tokens, str(token_file or ""))
            said = {"url": f"http://{'[::1]' if place.host == '::1' else place.host}:{port}"}
        else:
            guard, said = Guard(frozenset()), {"socket": str(place.path)}
        if token_file is not None:
            said["token_file"] = str(token_file)
        app = ProxyApp(relay, guard, bounds, _report)
        asyncio.run(_Server(app, bounds, json.dumps({"ready": True, **said})).serve(sockets=[listener]))


def _report(text: str) -> None:
    print(json.dumps({"event": "refused", "why": text}), file=sys.stderr, flush=True)


def _is_no_cut(record: logging.LogRecord) -> bool:
    """Keep a stream that is cut on purpose out of the log: why was reported already."""
    return not (record.exc_info and isinstance(record.exc_info[1], Cut))


class _BoundedHttp(H11Protocol):
    """Close a connection whose request head is too slow; h11 bounds its size."""

    head_timeout_s: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.head_timeout_s, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._end_head()
        elif self._timer is None and self.conn.trailing_data[0]:
            self._timer = self.loop.call_later(self.head_timeout_s, self.transport.abort)

    def _end_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    """Refuses what is new once it stops, and waits for what is under way as long as the grace allows."""

    def __init__(self, app: ProxyApp, bounds: Bounds, ready: str) -> None:
        class Http(_BoundedHttp):
            head_timeout_s = bounds.head_timeout_s

        logging.getLogger("uvicorn.error").addFilter(_is_no_cut)
        super().__init__(
            uvicorn.Config(
                app,
                http=Http,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=bounds.keep_alive_s,
                timeout_graceful_shutdown=max(1, int(bounds.stop_grace_s)),
                h11_max_incomplete_event_size=bounds.max_head_bytes,
            )
        )
        self._app, self._ready = app, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            print(self._ready, flush=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        yield

    def _stop(self, number: int) -> None:
        self._app.stopping = True
        self.handle_exit(number, None)
