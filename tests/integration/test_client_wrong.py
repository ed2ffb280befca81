"""Wrong URL, another's server, a policy that does not fit, no cryptography: one clear line, nothing sent."""

import http.server
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confide
import pytest
from confide.errors import NotConfide
from confide_protocol.errors import ConfideError, ConfigError, PolicyError, RelayUnreachable

from tests.fakes.stack import Stack, ask

SECRET = "the-words-that-must-not-leave"
MESSAGES = [{"role": "user", "content": SECRET}]


class Counting:
    """A socket that takes whatever comes, and counts it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.got = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self.listener.accept()
            except OSError:
                return
            with caller:
                self.got += caller.recv(65536)


@contextmanager
def counting() -> Iterator[Counting]:
    server = Counting()
    with server.listener:
        yield server


class PlainOpenAI(http.server.BaseHTTPRequestHandler):
    """What answers OpenAI's API in clear, and knows no evidence."""

    seen: list[bytes]

    def do_GET(self) -> None:
        self.seen.append(self.requestline.encode() + (self.headers["authorization"] or "").encode())
        self._say(b'{"object":"list","data":[]}' if self.path == "/v1/models" else b'{"detail":"Not Found"}')

    def do_POST(self) -> None:
        self.seen.append(self.rfile.read(int(self.headers["content-length"])))
        self._say(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"in clear"}}]}')

    def _say(self, body: bytes) -> None:
        self.send_response(200 if b"Not Found" not in body else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def plain() -> Iterator[tuple[str, list[bytes]]]:
    seen: list[bytes] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Plain", (PlainOpenAI,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def proxy(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the proxy, which has to end by itself."""
    command = [sys.executable, "-m", "confide.cli", "proxy", "--listen", "127.0.0.1:0", "--allow-simulated"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, env=env)


def line_of(done: subprocess.CompletedProcess[str], status: int) -> str:
    """Demand one line on stderr, none on stdout, and this exit status."""
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_a_plain_openai_server(stack: Stack, plain: tuple[str, list[bytes]]) -> None:
    """The client says what it found and what that server now knows: the key, and no prompt."""
    url, seen = plain
    known = "plain OpenAI server .* no prompt was sent to it, but a nonce and the API key were: .* revoked"
    with pytest.raises(NotConfide, match=known):
        ask(stack.openai(base_url=url), messages=MESSAGES)
    key = stack.ground.write("plain.key", stack.ground.api_key)
    line = line_of(
        proxy("--base-url", url, "--policy", str(stack.ground.policy_file), "--api-key-file", str(key)), 1
    )
    assert line.startswith(f"confide proxy: {url} serves no evidence (it answered 404)")
    assert len(seen) == 2
    for each in seen:
        assert each.startswith(b"GET /evidence?nonce=")
        assert each.endswith(stack.ground.api_key.encode())


def test_nobody_listens(stack: Stack) -> None:
    """An unreachable gateway is named with its URL, at once."""
    with pytest.raises(RelayUnreachable, match="check the URL"):
        ask(stack.openai(base_url="http://127.0.0.1:1"), messages=MESSAGES)


def test_a_server_that_says_nothing_in_http(stack: Stack) -> None:
    """One request for evidence, and not a word of the prompt."""
    with counting() as server:
        with pytest.raises(ConfideError):
            ask(stack.openai(base_url=server.url), messages=MESSAGES)
        assert server.got.startswith(b"GET /evidence?nonce=")
        assert SECRET.encode() not in server.got


@pytest.mark.parametrize("url", ["gateway.example", "ftp://gateway.example", "https://user:pw@gateway.example"])
def test_a_url_that_is_none(stack: Stack, url: str) -> None:
    """The form is refused, with the form that is right."""
    with pytest.raises(ConfigError, match=r"must be http://host"):
        stack.openai(base_url=url)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("not_after = ", "not_after = 2020-01-01T00:00:00Z #", "has passed; get a newer policy"),
        ("id = ", "version = 7\nid = ", "version: is not a known setting.*for another version of Confide"),
        ("[session]", '[session]\ndialect = "v2"', "session.dialect: is not a known setting"),
        ('suite = "mlkem768-x25519/hkdf-sha256/aes-256-gcm"', 'suite = "future"', "session.suite"),
        ("[session]", "[sessions]", "session"),
    ],
)
def test_a_policy_that_does_not_fit(stack: Stack, tmp_path: Path, old: str, new: str, words: str) -> None:
    """An expired one and those of other versions: PolicyError, one line of the proxy's, and not a byte sent."""
    text = stack.ground.policy_file.read_text()
    assert old in text
    policy = tmp_path / "policy.toml"
    policy.write_text(text.replace(old, new, 1))
    with counting() as server:
        with pytest.raises(PolicyError, match=words):
            stack.openai(base_url=server.url, policy=policy)
        line = line_of(proxy("--base-url", server.url, "--policy", str(policy)), 2)
        assert re.search(words, line)
        assert str(policy) in line or "playground" in line
        assert server.got == b""


def test_a_runtime_without_the_cryptography(stack: Stack, tmp_path: Path) -> None:
    """A Python whose cryptography knows no ML-KEM: which package, which version, what to install; nothing sent."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('mlkem', 'mldsa'):\n"
        "    sys.modules['cryptography.hazmat.primitives.asymmetric.' + name] = None\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    with counting() as server:
        line = line_of(proxy("--base-url", server.url, "--policy", str(stack.ground.policy_file), env=env), 2)
        assert line.startswith("confide: cryptography: ")
        assert "install cryptography 50.0.2 or newer" in line
        done = subprocess.run(
            [sys.executable, "-c", "import confide\ntry: confide.verified_transport\n"
             "except confide.RuntimeUnfit as fault: print(fault)"],
            capture_output=True, text=True, env=env, timeout=60,
        )  # fmt: skip
        assert "ML-KEM" in done.stdout, done.stderr
        assert server.got == b""


def test_the_transport_refuses_what_is_no_request_of_its_libraries(stack: Stack) -> None:
    """And a request to another host, whoever redirects there."""
    transport = confide.verified_transport(stack.url, relay=stack.relay())
    with pytest.raises(ConfideError, match="httpx and httpx2"):
        transport.handle_request(object())
