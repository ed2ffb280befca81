"""The proxy before a gateway that lies, or is away: OpenAI's errors with stable codes, never an answer in clear."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import openai
import pytest
from confide_protocol import labels

from tests.fakes.hostile import Answer, Hostile, hostile_gateway
from tests.fakes.proxying import Proxy, arguments, proxying
from tests.fakes.stack import Stack, ask

CLEAR = b'{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"content":"CLEAR-ANSWER"}}]}'


@pytest.fixture(scope="module")
def hostile(stack: Stack) -> Iterator[Hostile]:
    with hostile_gateway(stack.url) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(stack: Stack, hostile: Hostile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    ground = replace(stack.ground, gateway_url=hostile.url)
    with proxying(Stack(ground, ""), tmp_path_factory.mktemp("proxy"), "--recover", "0.5") as running:
        yield running


@pytest.fixture
def client(proxy: Proxy, hostile: Hostile) -> openai.OpenAI:
    hostile.reset()
    return openai.OpenAI(base_url=proxy.url + "/v1", api_key=proxy.token, max_retries=2)


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (Answer(200, "application/json", [CLEAR]), 502, "outcome_unknown"),
        (Answer(401, labels.MEDIA_PROBLEM, [CLEAR]), 401, "relay_refused"),
        (Answer(500, "text/html", [CLEAR]), 502, "outcome_unknown"),
        (Answer(200, labels.MEDIA_RESPONSE, [CLEAR]), 502, "truncated"),
        (Answer(200, labels.MEDIA_RESPONSE, []), 502, "truncated"),
    ],
)
def test_what_is_not_sealed_is_refused(
    client: openai.OpenAI, hostile: Hostile, answer: Answer, status: int, code: str
) -> None:
    """A code that stays, no byte of the gateway's, and one try: openai's own retries are told not to."""
    hostile.instead, before = lambda sealed: answer, len(hostile.requests)
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert "never sends a request in clear" in caught.value.message
    assert "CLEAR" not in caught.value.response.text
    assert len(hostile.requests) == before + 1


def test_a_stream_that_is_cut(client: openai.OpenAI, hostile: Hostile, proxy: Proxy) -> None:
    """One error event, no [DONE], and a connection without an end."""
    assert list(ask(client, stream=True, max_tokens=4))
    hostile.frames = lambda frames: frames[:-1]
    shown = []
    with pytest.raises(openai.APIError) as caught:
        shown.extend(ask(client, stream=True, max_tokens=4))
    assert caught.value.code == "truncated"
    body = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "?"}], "max_tokens": 4}
    pieces: list[bytes] = []
    with (
        proxy.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as response,
        pytest.raises(httpx2.RemoteProtocolError),
    ):
        pieces.extend(response.iter_bytes())
    raw = b"".join(pieces)
    assert b"[DONE]" not in raw
    assert json.loads(raw.rstrip().rpartition(b"data: ")[2])["error"]["code"] == "truncated"


def test_a_gateway_that_is_away(client: openai.OpenAI, hostile: Hostile, proxy: Proxy) -> None:
    """503 is passed on as such, but sealed bytes had left: no SDK asks again by itself. The page shows it."""
    hostile.instead = lambda sealed: Answer(503, labels.MEDIA_PROBLEM, [])
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client.with_options(max_retries=0))
    assert caught.value.status_code == 503
    assert caught.value.response.headers["x-should-retry"] == "false"
    with proxy.http() as http:
        assert http.get("/status").json()["last_fault"]["code"] == "relay_refused"
        assert "Last refusal" in http.get("/").text


def test_a_proxy_does_not_start_before_a_refused_enclave(stack: Stack, hostile: Hostile, tmp_path: Path) -> None:
    """Evidence that fails is one line with the checks' names, and exit status 1."""
    hostile.reset()
    policy = stack.ground.policy_file.read_text().replace("vmpl = [0]", "vmpl = [1]")
    stricter = stack.ground.write("stricter-proxy.toml", policy)
    command = arguments(stack, tmp_path, "--listen", "127.0.0.1:0")
    command[command.index("--policy") + 1] = str(stricter)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("confide proxy: refused: vmpl:")
