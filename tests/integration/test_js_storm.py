"""Fifty open conversations from Node while keys rotate, the gateway restarts or is killed, and a node is lost."""

import time
from collections.abc import Iterator

import pytest

from tests.fakes.conversations import ASKED
from tests.fakes.js import Js, JsStorm, running_js
from tests.fakes.stack import Stack
from tests.fakes.two_nodes import LIMIT_S, executions, kill_gateway, kill_node, restart_gateway, two_nodes
from tests.integration.test_client_restart import free_port


@pytest.fixture(scope="module")
def js() -> Iterator[Js]:
    with running_js() as running:
        yield running


@pytest.fixture(scope="module")
def two(js: Js, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give enclaves without GPUs: the package judges their evidence."""
    with two_nodes(tmp_path_factory.mktemp("two"), free_port(), gpus=0) as stack:
        yield stack


@pytest.fixture
def storm(js: Js, two: Stack) -> JsStorm:
    return JsStorm(js, two)


def test_keys_rotate(two: Stack, storm: JsStorm) -> None:
    """Over a rotation no call fails, begun or not, and none is run twice."""
    before = executions(two)
    with storm:
        storm.wait_for(1, LIMIT_S)
        first, deadline_s = storm.told["keyset"], time.monotonic() + LIMIT_S
        while storm.told["keyset"] == first:
            assert time.monotonic() < deadline_s
            storm.wait_for(1, LIMIT_S)
        storm.wait_for(50, LIMIT_S)
    assert (storm.begun, storm.unbegun) == ({}, {})
    assert executions(two) - before == storm.calls


def test_a_browser_sends_bytes_twice(js: Js, two: Stack) -> None:
    """Unasked and unsaid: the second time they are refused as opened before, and the call is not sealed anew."""
    before, policy = executions(two), two.ground.policy_file.read_text()
    js.open(two.url, policy, id="twice", key=two.ground.api_key, twice=True)
    for calls in range(1, 4):
        answer = js("fetch", id="twice", path="/chat/completions", body={**ASKED, "max_tokens": 2})
        assert answer["error"]["code"] == "outcome_unknown"
        assert executions(two) - before == calls
    assert sum(each.startswith("POST") for each in js("sent")["sent"]) == 3


def test_the_gateway_restarts(two: Stack, storm: JsStorm) -> None:
    """What runs ends well, what comes meanwhile waits; `fetch` cannot always tell that a call was not begun.

    No call is run twice, by this package or by the retries of openai's SDK.
    """
    before = executions(two)
    with storm:
        storm.wait_for(20, LIMIT_S)
        restart_gateway(two)
        storm.wait_for(60, LIMIT_S)
    assert storm.begun == {}
    assert set(storm.unbegun) <= {"outcome_unknown"}
    assert storm.told["whole"] <= executions(two) - before <= storm.calls


def test_the_gateway_is_killed(two: Stack, storm: JsStorm) -> None:
    """SIGKILL: what had begun ends in one typed error, what had not is answered or may have run, and none twice."""
    before = executions(two)
    with storm:
        storm.wait_for(20, LIMIT_S)
        kill_gateway(two)
        storm.wait_for(60, LIMIT_S)
    assert set(storm.begun) <= {"truncated"}
    assert set(storm.unbegun) <= {"outcome_unknown"}
    assert storm.told["whole"] <= executions(two) - before <= storm.calls


def test_a_node_is_lost(two: Stack, storm: JsStorm) -> None:
    """Killed under all conversations: those that had begun end in one typed error, all others are answered."""
    before = executions(two)
    with storm:
        storm.wait_for(20, LIMIT_S)
        kill_node(two, storm.told["keyset"])
        storm.wait_for(60, LIMIT_S)
    assert set(storm.begun) <= {"truncated"}
    assert storm.unbegun == {}
    assert executions(two) - before <= storm.calls
