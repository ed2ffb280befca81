"""Enclaves that die, return with new keys, and rotate them under running clients."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from confide.transport import Transport
from confide_protocol.errors import ConfideError, RelayRefused, RelayUnreachable, Truncated

from tests.fakes.stack import Stack, ask, running_stack

LIMIT_S = 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a stack that a test may break: its enclave keeps its port, its keysets live for seconds."""
    with running_stack(
        tmp_path_factory.mktemp("own"),
        enclave_port=free_port(),
        enclave_settings="\n[keyset]\nlifetime_s = 6\ngrace_s = 3\n",
        gateway_settings="\n[appraisal]\ninterval_s = 1.0\nretry_s = 0.2\nhealth_interval_s = 0.5\n",
    ) as running:
        yield running


def test_keysets_rotate_under_a_running_client(own: Stack) -> None:
    """Over more than one rotation every call succeeds, and at least two keysets were sealed to."""
    client, keysets = own.openai(), set()
    deadline_s = time.monotonic() + 6
    while time.monotonic() < deadline_s:
        assert client.models.list().data
        assert client.last_receipt is not None
        keysets.add(client.last_receipt.claims.keyset_digest)
        time.sleep(0.2)
    assert len(keysets) >= 2


def test_an_enclave_that_dies_within_an_answer(own: Stack) -> None:
    """Killed within a stream: a typed error before [DONE], no receipt. Back with new keys: clients go on."""
    relay = own.relay()
    shown: list[bytes] = []
    body: dict[str, Any] = {
        "model": relay.ready().manifest.model,
        "messages": [{"role": "user", "content": "Tell a long story."}],
        "max_tokens": 512,
        "stream": True,
    }

    def read_and_kill() -> None:
        with (
            httpx2.Client(transport=Transport(own.url, relay=relay), timeout=LIMIT_S) as http,
            http.stream("POST", own.url + "/v1/chat/completions", json=body) as response,
        ):
            for part in response.iter_raw():
                if not shown:
                    os.kill(own.ground.children["enclave"].process.pid, signal.SIGKILL)
                shown.append(part)

    with pytest.raises(Truncated):
        read_and_kill()
    assert shown
    assert b"[DONE]" not in b"".join(shown)
    assert relay.last_receipt is None

    client = own.openai()
    with pytest.raises(ConfideError):
        client.models.list()
    own.ground.stop("enclave")
    own.ground.start_enclave().ready()
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        try:
            assert ask(client, max_tokens=2).choices
            break
        except (RelayRefused, RelayUnreachable):
            assert time.monotonic() < deadline_s
            time.sleep(0.2)


def test_a_client_survives_a_quick_restart(own: Stack) -> None:
    """New keys behind the same gateway: the call that meets the stale key is sealed anew and succeeds."""
    client = own.openai()
    client.models.list()
    assert client.last_receipt is not None
    before = client.last_receipt.claims.keyset_digest
    own.ground.stop("enclave")
    own.ground.start_enclave().ready()
    other = own.openai()
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        try:
            other.models.list()
            break
        except (RelayRefused, RelayUnreachable):
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
    client.models.list()
    assert client.last_receipt.claims.keyset_digest != before
