"""One bounded JSON request."""

import socket
import threading
import time

import pytest
from confide_enclave.collect import http
from confide_enclave.collect.http import post_json
from confide_enclave.errors import DeviceUnavailable

from tests.unit.enclave.collect.agents import agent, always, service


def test_the_body_arrives_and_the_answer_comes_back(monkeypatch):
    """Path and body as given; the environment's proxy does not count."""
    with (
        pytest.MonkeyPatch.context() as patch,
        service(lambda path, body: (200, b'{"p": "%b"}' % path.encode())) as url,
    ):
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        assert post_json(f"{url}/acc", {"a": "b"}, timeout_s=5) == {"p": "/acc"}


def test_a_unix_socket_is_gone_through(tmp_path):
    """The URL's host is only a name then."""
    with agent(tmp_path / "s", lambda path, body: (200, b'{"x": "%b"}' % body["a"].encode())) as path:
        assert post_json("http://agent/X", {"a": "b"}, timeout_s=5, socket=str(path)) == {"x": "b"}


@pytest.mark.parametrize(
    ("status", "data", "said"),
    [
        (500, b"{}", "answered with status 500"),
        (302, b"{}", "answered with status 302"),
        (200, b"[]", "no JSON object"),
        (200, b"\xff", "no JSON object"),
        (200, b'{"a": 1, "a": 2}', "no JSON object"),
    ],
)
def test_another_answer_is_refused(status, data, said):
    """Another status, another document; no redirect is followed."""
    with service(always(status, data)) as url, pytest.raises(DeviceUnavailable, match=said):
        post_json(url, {}, timeout_s=5)


def test_a_large_answer_is_cut_off(monkeypatch):
    """The limit holds while it is being read."""
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1000)
    with service(always(200, b"x" * 2000)) as url, pytest.raises(DeviceUnavailable, match="larger than 1000 bytes"):
        post_json(url, {}, timeout_s=5)


def test_nobody_there_is_a_clear_fault(tmp_path):
    """Refused connections name where."""
    with pytest.raises(DeviceUnavailable, match=f"{tmp_path}/s: cannot be reached"):
        post_json("http://agent/X", {}, timeout_s=5, socket=str(tmp_path / "s"))


@pytest.mark.parametrize(("said", "answer"), [("no answer within", None), ("is no HTTP", b"x\r\n\r\n")])
def test_silence_and_noise_are_told_apart(tmp_path, said, answer):
    """A peer that says nothing, and one that speaks something else."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen(1)

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                if answer is None:
                    time.sleep(0.3)
                else:
                    peer.recv(4096)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DeviceUnavailable, match=said):
            post_json("http://agent/X", {}, timeout_s=0.1, socket=str(tmp_path / "s"))
        thread.join()
