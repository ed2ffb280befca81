"""Fifty open conversations while keys rotate, the gateway restarts or is killed, and one of two nodes is lost."""

import json
import signal
import time
from collections.abc import Iterator

import pytest

from tests.fakes.conversations import LISTS, Storm
from tests.fakes.stack import Stack, running_stack
from tests.integration.test_client_restart import free_port

LIMIT_S = 60
KEYSET = "\n[keyset]\nlifetime_s = 24\ngrace_s = 12\n"
GATEWAY = "\n[appraisal]\ninterval_s = 1.0\nretry_s = 0.2\nhealth_interval_s = 0.5\n"
NODES = ("enclave", "second")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a gateway on a port of its own before two enclaves whose keys live for seconds."""
    with running_stack(
        tmp_path_factory.mktemp("two"), port=free_port(), enclave_settings=KEYSET, gateway_settings=GATEWAY
    ) as stack:
        start_second(stack)
        file = f"{stack.ground.folder}/keys.toml"
        many = ("--label", "storm", "--max-concurrency", "200", "--json")
        stack.ground.api_key = stack.ground.confide("keys", "keys", "new", "--file", file, *many).ready()["key"]
        stack.ground.stop("keys")
        restart_gateway(stack)
        yield stack


def start_second(stack: Stack) -> None:
    stack.second = stack.ground.start_enclave(name="second").ready()["url"]  # type: ignore[attr-defined]


def restart_gateway(stack: Stack) -> None:
    """Stop the gateway as systemd does, wait for it, and start it anew on the same port."""
    old = stack.ground.children["gateway"].process
    old.send_signal(signal.SIGTERM)
    assert old.wait(LIMIT_S) == 0
    start_gateway(stack)


def start_gateway(stack: Stack) -> None:
    port = int(stack.url.rpartition(":")[2])
    stack.ground.start_gateway([stack.enclave_url, stack.second], port, GATEWAY)  # type: ignore[attr-defined]


def executions(stack: Stack) -> int:
    """Count the sealed requests that any node answered, by the nodes' own logs."""
    found = 0
    for name in NODES:
        for line in (stack.ground.folder / f"{name}.log").read_text().splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            found += said.get("path", "").startswith("/ohttp/") and said.get("status") == 200
    return found


def executed(stack: Stack, before: int, calls: int) -> int:
    """Count those since `before`; a node logs a request a moment after its answer ended."""
    deadline_s = time.monotonic() + LIMIT_S
    while executions(stack) - before < calls and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return executions(stack) - before


def test_keys_rotate(two: Stack) -> None:
    """Over a rotation no call fails, begun or not, and none is run twice."""
    before = executions(two)
    with Storm(two) as storm:
        deadline_s = time.monotonic() + LIMIT_S
        while len(storm.keysets) < 2:
            assert time.monotonic() < deadline_s
            storm.wait_for(1, LIMIT_S)
        storm.wait_for(50, LIMIT_S)
    assert (storm.begun, storm.unbegun) == ({}, {})
    calls = storm.calls + LISTS
    assert executed(two, before, calls) == calls


def test_the_gateway_restarts(two: Stack) -> None:
    """What runs ends well, what comes meanwhile waits: no call fails, and none is run twice."""
    before = executions(two)
    with Storm(two) as storm:
        storm.wait_for(20, LIMIT_S)
        restart_gateway(two)
        storm.wait_for(60, LIMIT_S)
    assert (storm.begun, storm.unbegun) == ({}, {})
    calls = storm.calls + LISTS
    assert executed(two, before, calls) == calls


def test_the_gateway_is_killed(two: Stack) -> None:
    """SIGKILL: what had begun ends in one typed error, what had not is answered, whatever the gateway was at.

    No call is run twice: those whose sealed bytes a living enclave may hold are sent again as the same bytes, and
    these it opens once.
    """
    before = executions(two)
    with Storm(two) as storm:
        storm.wait_for(20, LIMIT_S)
        old = two.ground.children["gateway"].process
        old.kill()
        old.wait(LIMIT_S)
        start_gateway(two)
        storm.wait_for(60, LIMIT_S)
    assert set(storm.begun) <= {"Truncated"}
    assert set(storm.unbegun) <= {"OutcomeUnknown"}
    # Each call's sealed bytes were opened at most once, those that end unknown included.
    assert executions(two) - before <= storm.calls + LISTS


def test_a_node_is_lost(two: Stack) -> None:
    """Killed under all conversations: those that had begun end in one typed error, all others are answered."""
    with Storm(two) as storm:
        storm.wait_for(20, LIMIT_S)
        used = storm.client.last_receipt.claims.keyset_digest.hex()
        (name,) = [each for each in NODES if used in (two.ground.folder / f"{each}.log").read_text()]
        two.ground.children[name].process.kill()
        storm.wait_for(60, LIMIT_S)
    assert storm.unbegun == {}
    assert set(storm.begun) <= {"Truncated"}
