"""`confide proxy` before the real stack: OpenAI's plain API on this machine, sealed beyond it."""

import json
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from confide.playground import Child

from tests.fakes.proxying import Proxy, arguments, proxying
from tests.fakes.stack import ANSWER, QUESTION, Stack, ask

ASKED = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": QUESTION}],
    "max_tokens": 12,
    "temperature": 0,
}


@pytest.fixture(scope="module")
def proxy(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxying(stack, tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.url + "/v1", api_key=proxy.token, max_retries=0)


def text(stream) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_an_unmodified_client(client: openai.OpenAI) -> None:
    """Plain and streamed answers are the same; models are listed; a refusal of the enclave is openai's own."""
    answer = ask(client).choices[0].message.content
    assert ANSWER in answer
    assert text(ask(client, stream=True)) == answer
    assert client.models.list().data[0].id == "smollm2-135m-instruct"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="none", messages=[{"role": "user", "content": "?"}])


def test_the_pages_show_what_was_verified(proxy: Proxy, client: openai.OpenAI) -> None:
    """/status is JSON with the checks and the last receipts, / and /attestation are pages without a script."""
    ask(client, max_tokens=2)
    with proxy.http() as http:
        status = http.get("/status").json()
        assert status["verified"]
        assert status["attestation"]["simulated"]
        assert status["receipts"][0]["outcome"] == "complete"
        assert len(status["receipts"][0]["sealed_request_sha256"]) == 64
        home, whole = http.get("/"), http.get("/attestation")
        assert "SIMULATED HARDWARE" in home.text
        assert status["receipts"][0]["sealed_request_sha256"][:16] in home.text
        assert "report_data" in whole.text
        for page in (home, whole):
            assert "<script" not in page.text
            assert "default-src" in page.text
            assert QUESTION not in page.text
        assert not any(name.startswith("access-control") for name in home.headers)
        assert http.get("/healthz").json() == {"service": "confide-proxy", "status": "ok"}


def test_the_pages_tell_a_stranger_nothing_of_what_was_asked(proxy: Proxy, client: openai.OpenAI) -> None:
    """Without the token: what is verified, and no receipt, no last refusal."""
    ask(client, max_tokens=2)
    with pytest.raises(openai.BadRequestError):
        client.models.list(extra_headers={"confide-nonce": "1"})
    with proxy.http() as http:
        known = http.get("/status").json()
        assert known["receipts"]
        assert known["last_fault"]["code"] == "local_state"
        assert "Last refusal" in http.get("/").text
    for headers in ({}, {"authorization": "Bearer wrong"}):
        with proxy.http(headers=headers) as http:
            said = http.get("/status").json()
            assert said["verified"]
            assert (said["receipts"], said["last_fault"]) == ([], None)
            home = http.get("/").text
            assert "Last refusal" not in home
            assert known["receipts"][0]["sealed_request_sha256"][:16] not in home


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"host": "evil.example"}, 421, "wrong_host"),
        ({"host": "127.0.0.1.evil.example"}, 421, "wrong_host"),
        ({"origin": "https://evil.example"}, 403, "foreign_origin"),
        ({"origin": "null"}, 403, "foreign_origin"),
        ({"sec-fetch-site": "cross-site"}, 403, "foreign_origin"),
        ({"authorization": "Bearer wrong"}, 401, "wrong_token"),
        ({"authorization": ""}, 401, "wrong_token"),
        ({"confide-nonce": "1"}, 400, "local_state"),
    ],
)
def test_who_may_not_ask(proxy: Proxy, headers: dict[str, str], status: int, code: str) -> None:
    """Names that are not this machine's, pages of other sites, callers without the token."""
    with proxy.http() as http:
        answer = http.post("/v1/chat/completions", json=ASKED, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-should-retry"] == "false"
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_the_gateways_own_key_is_a_token_too(proxy: Proxy, stack: Stack) -> None:
    """Who holds it could go to the gateway alone."""
    client = openai.OpenAI(base_url=proxy.url + "/v1", api_key=stack.ground.api_key, max_retries=0)
    assert client.models.list().data


def test_other_paths_and_methods(proxy: Proxy) -> None:
    """Below /v1 the enclave answers, also with its refusals; elsewhere the proxy does."""
    with proxy.http() as http:
        assert http.get("/nothing").json()["error"]["code"] == "not_found"
        assert http.post("/").status_code == 405
        assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
        assert http.options("/v1/models", headers={"access-control-request-method": "GET"}).status_code >= 400
        large = http.post("/v1/chat/completions", content=b" " * (3 << 20))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")


def test_a_socket_for_its_owner_alone(stack: Stack, tmp_path: Path) -> None:
    """A unix socket of mode 0600, no token; it is gone after SIGTERM."""
    path = tmp_path / "confide.sock"
    with proxying(stack, tmp_path, "--socket", str(path)) as proxy:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        transport = httpx2.HTTPTransport(uds=str(path))
        with httpx2.Client(transport=transport, base_url="http://any", timeout=60) as http:
            answer = http.post("/v1/chat/completions", json=ASKED)
            assert ANSWER in answer.json()["choices"][0]["message"]["content"]
        second = subprocess.run(
            arguments(stack, tmp_path, "--socket", str(path)), capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 2
        assert second.stderr.splitlines() == [
            f"confide proxy: {path}: --socket: a confide proxy listens there already; stop it, or name another path"
        ]
        proxy.child.process.send_signal(signal.SIGTERM)
        assert proxy.child.process.wait(10) == 0
    assert not path.exists()


def test_a_dead_proxys_socket_is_taken_over(stack: Stack, tmp_path: Path) -> None:
    """What a killed proxy left behind is no obstacle; a file that is no socket is left alone."""
    path = tmp_path / "confide.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with proxying(stack, tmp_path, "--socket", str(path)):
        pass
    path.write_text("mine")
    done = subprocess.run(
        arguments(stack, tmp_path, "--socket", str(path)), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "is no socket" in done.stderr
    assert path.read_text() == "mine"


def test_started_twice(proxy: Proxy, stack: Stack, tmp_path: Path) -> None:
    """One clear line says who holds the port."""
    place = proxy.url.removeprefix("http://")
    done = subprocess.run(arguments(stack, tmp_path, "--listen", place), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        f"confide proxy: {place}: --listen: a confide proxy listens there already; "
        "stop it, or choose another port (0 takes any free one)\n"
    )


def test_sigterm_lets_what_is_under_way_finish(stack: Stack, tmp_path: Path) -> None:
    """A stream that runs ends well; who comes later is refused; the process ends with 0."""
    with proxying(stack, tmp_path) as proxy, proxy.http() as http:
        body = {**ASKED, "stream": True, "max_tokens": 40}
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            pieces = response.iter_bytes()
            seen = next(pieces)
            os.kill(proxy.child.process.pid, signal.SIGTERM)
            seen += b"".join(pieces)
        assert seen.endswith(b"data: [DONE]\n\n")
        assert proxy.child.process.wait(10) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(proxy.url + "/healthz", trust_env=False)


def test_a_client_that_leaves(proxy: Proxy) -> None:
    """The request is dropped at once, and the proxy goes on."""
    with proxy.http() as http:
        body = {**ASKED, "stream": True, "max_tokens": 500}
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            next(response.iter_bytes())
        done = threading.Event()
        for _ in range(100):
            if http.get("/status").json()["in_flight"] == 0:
                break
            done.wait(0.1)
        assert http.get("/status").json()["in_flight"] == 0


def test_callers_bring_their_own_keys(stack: Stack, tmp_path: Path) -> None:
    """Without a key of its own the proxy hands each caller's to the gateway, and asks for no token."""
    full = arguments(stack, tmp_path, "--listen", "127.0.0.1:0")
    at = full.index("--api-key-file")
    child = Child("proxy", [*full[:at], *full[at + 2 :]], tmp_path)
    try:
        said = child.ready()
        assert "token_file" not in said
        status = httpx2.get(said["url"] + "/status").json()
        assert status["verified"] is False  # nobody has brought a key yet
        good = openai.OpenAI(base_url=said["url"] + "/v1", api_key=stack.ground.api_key, max_retries=0)
        assert good.models.list().data
        bad = openai.OpenAI(base_url=said["url"] + "/v1", api_key="confide-wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="the gateway does not know it"):
            bad.models.list()
    finally:
        child.stop()


def test_the_log_holds_no_content(proxy: Proxy) -> None:
    """Refusals are logged by code; no prompt, no token."""
    log = proxy.child.log.read_text()
    for line in log.splitlines():
        assert set(json.loads(line)) == {"event", "why"}
    assert proxy.token not in log
    assert QUESTION not in log
