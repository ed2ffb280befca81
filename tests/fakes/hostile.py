"""A gateway in the way of the real one that may do with every byte what it likes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
from confide_protocol import labels, varint

NONCE_BYTES = 32
Frames = list[bytes]


def split_frames(sealed: bytes) -> Frames:
    """Cut a sealed answer at its boundaries: nonce, chunks with their lengths, final chunk."""
    frames, at = [sealed[:NONCE_BYTES]], NONCE_BYTES
    while at < len(sealed):
        found = varint.read(sealed, at)
        assert found is not None
        length, start = found
        end = start + length if length else len(sealed)
        frames.append(sealed[at:end])
        at = end
    return frames


@dataclass
class Answer:
    """What the client is sent."""

    status: int
    content_type: str
    parts: Frames


@dataclass
class Hostile:
    """Honest until a hook is set. `requests` and `answers` keep the sealed bytes that passed."""

    upstream: str
    evidence: Callable[[bytes], bytes] = lambda bundle: bundle
    frames: Callable[[Frames], Frames] = lambda frames: frames
    instead: Callable[[bytes], Answer | None] = lambda sealed: None
    requests: list[bytes] = field(default_factory=list)
    answers: list[Frames] = field(default_factory=list)
    url: str = ""

    def reset(self) -> None:
        """Be honest again."""
        self.evidence = lambda bundle: bundle
        self.frames = lambda frames: frames
        self.instead = lambda sealed: None

    def get(self, path: str, authorization: str) -> Answer:
        with httpx2.Client(trust_env=False, timeout=30) as client:
            got = client.get(self.upstream + path, headers={"authorization": authorization})
        body = self.evidence(got.content) if got.status_code == 200 else got.content
        return Answer(got.status_code, got.headers["content-type"], [body])

    def post(self, path: str, authorization: str, sealed: bytes) -> Answer:
        self.requests.append(sealed)
        if (answer := self.instead(sealed)) is not None:
            return answer
        with httpx2.Client(trust_env=False, timeout=60) as client:
            headers = {"authorization": authorization, "content-type": labels.MEDIA_REQUEST}
            got = client.post(self.upstream + path, headers=headers, content=sealed)
        if got.status_code != 200:
            return Answer(got.status_code, got.headers["content-type"], [got.content])
        frames = split_frames(got.content)
        self.answers.append(frames)
        return Answer(200, got.headers["content-type"], self.frames(frames))


@contextmanager
def hostile_gateway(upstream: str) -> Iterator[Hostile]:
    """Serve a Hostile on loopback until the block ends."""
    hostile = Hostile(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(hostile.get(self.path, self.headers["authorization"]))

        def do_POST(self) -> None:
            sealed = self.rfile.read(int(self.headers["content-length"]))
            self._send(hostile.post(self.path, self.headers["authorization"], sealed))

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            self.send_header("content-type", answer.content_type)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for part in filter(None, answer.parts):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that has seen enough hangs up: nothing to report."""

    server = Server(("127.0.0.1", 0), Handler)
    hostile.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hostile
    finally:
        server.shutdown()
        server.server_close()
