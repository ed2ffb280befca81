"""Small real HTTP servers: an agent behind a unix socket, a metadata service on loopback."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[[str, dict[str, Any]], tuple[int, bytes]]


def _handler(answer: Answer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, data = answer(self.path, body)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def address_string(self) -> str:
            return "agent"

        def log_message(self, *args: object) -> None:
            return

    return Handler


class _Unix(socketserver.UnixStreamServer):
    pass


@contextmanager
def agent(path: Path, answer: Answer) -> Iterator[Path]:
    """Serve on a unix socket."""
    with _Unix(str(path), _handler(answer)) as server, _running(server):
        yield path


@contextmanager
def service(answer: Answer) -> Iterator[str]:
    """Serve on loopback; yields the base URL."""
    with HTTPServer(("127.0.0.1", 0), _handler(answer)) as server, _running(server):
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def _running(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def always(status: int, data: bytes | dict[str, Any]) -> Answer:
    encoded = data if isinstance(data, bytes) else json.dumps(data).encode()
    return lambda path, body: (status, encoded)
