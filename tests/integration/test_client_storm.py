"""Fifty open conversations while keys rotate, the gateway restarts or is killed, and one of two nodes is lost."""

import time
from collections.abc import Iterator

import pytest

from tests.fakes.conversations import LISTS, Storm
from tests.fakes.stack import Stack
from tests.fakes.two_nodes import LIMIT_S, executions, kill_gateway, kill_node, restart_gateway, two_nodes
from tests.integration.test_client_restart import free_port


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with two_nodes(tmp_path_factory.mktemp("two"), free_port()) as stack:
        yield stack


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
    assert executions(two) - before == storm.calls + LISTS


def test_the_gateway_restarts(two: Stack) -> None:
    """What runs ends well, what comes meanwhile waits: no call fails, and none is run twice."""
    before = executions(two)
    with Storm(two) as storm:
        storm.wait_for(20, LIMIT_S)
        restart_gateway(two)
        storm.wait_for(60, LIMIT_S)
    assert (storm.begun, storm.unbegun) == ({}, {})
    assert executions(two) - before == storm.calls + LISTS


def test_the_gateway_is_killed(two: Stack) -> None:
    """SIGKILL: what had begun ends in one typed error, what had not is answered, whatever the gateway was at.

    No call is run twice: those whose sealed bytes a living enclave may hold are sent again as the same bytes, and
    these it opens once.
    """
    before = executions(two)
    with Storm(two) as storm:
        storm.wait_for(20, LIMIT_S)
        kill_gateway(two)
        storm.wait_for(60, LIMIT_S)
    assert set(storm.begun) <= {"Truncated"}
    assert set(storm.unbegun) <= {"OutcomeUnknown"}
    # Each call's sealed bytes were opened at most once, those that end unknown included.
    assert executions(two) - before <= storm.calls + LISTS


def test_a_node_is_lost(two: Stack) -> None:
    """Killed under all conversations: those that had begun end in one typed error, all others are answered."""
    with Storm(two) as storm:
        storm.wait_for(20, LIMIT_S)
        kill_node(two, storm.client.last_receipt.claims.keyset_digest.hex())
        storm.wait_for(60, LIMIT_S)
    assert storm.unbegun == {}
    assert set(storm.begun) <= {"Truncated"}
