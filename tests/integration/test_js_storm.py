"""Fifty open conversations from Node while keys rotate, the gateway restarts or is killed, and a node is lost."""

import time
from collections.abc import Iterator

import pytest

from tests.fakes.conversations import ASKED
from tests.fakes.js import Js, JsStorm, running_js
from tests.fakes.stack import Stack, running_stack
from tests.integration.test_client_restart import free_port
from tests.integration.test_client_storm import (
    GATEWAY,
    KEYSET,
    LIMIT_S,
    NODES,
    executions,
    restart_gateway,
    start_gateway,
    start_second,
)


@pytest.fixture(scope="module")
def js() -> Iterator[Js]:
    with running_js() as running:
        yield running


@pytest.fixture(scope="module")
def two(js: Js, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a gateway on a port of its own before two enclaves without GPUs, whose evidence the package judges."""
    folder = tmp_path_factory.mktemp("two")
    settings = {"enclave_settings": KEYSET, "gateway_settings": GATEWAY}
    with running_stack(folder, gpus=0, port=free_port(), **settings) as stack:
        start_second(stack)
        file = f"{stack.ground.folder}/keys.toml"
        many = ("--label", "storm", "--max-concurrency", "200", "--json")
        stack.ground.api_key = stack.ground.confide("keys", "keys", "new", "--file", file, *many).ready()["key"]
        stack.ground.stop("keys")
        restart_gateway(stack)
        yield stack


@pytest.fixture
def storm(js: Js, two: Stack) -> JsStorm:
    return JsStorm(js, two)


def settled(stack: Stack) -> int:
    """Count executions once the nodes' logs stand still: a line is written after its answer was sent."""
    found = executions(stack)
    while True:
        time.sleep(0.5)
        before, found = found, executions(stack)
        if before == found:
            return found


def test_keys_rotate(two: Stack, storm: JsStorm) -> None:
    """Over a rotation no call fails, begun or not, and none is run twice."""
    before = settled(two)
    with storm:
        storm.wait_for(1, LIMIT_S)
        first, deadline_s = storm.told["keyset"], time.monotonic() + LIMIT_S
        while storm.told["keyset"] == first:
            assert time.monotonic() < deadline_s
            storm.wait_for(1, LIMIT_S)
        storm.wait_for(50, LIMIT_S)
    assert (storm.begun, storm.unbegun) == ({}, {})
    assert settled(two) - before == storm.calls


def test_a_browser_sends_bytes_twice(js: Js, two: Stack) -> None:
    """Unasked and unsaid: the second time they are refused as opened before, and the call is not sealed anew."""
    before, policy = settled(two), two.ground.policy_file.read_text()
    js.open(two.url, policy, id="twice", key=two.ground.api_key, twice=True)
    for calls in range(1, 4):
        answer = js("fetch", id="twice", path="/chat/completions", body={**ASKED, "max_tokens": 2})
        assert answer["error"]["code"] == "outcome_unknown"
        assert settled(two) - before == calls
    assert sum(each.startswith("POST") for each in js("sent")["sent"]) == 3


def test_the_gateway_restarts(two: Stack, storm: JsStorm) -> None:
    """What runs ends well, what comes meanwhile waits; `fetch` cannot always tell that a call was not begun.

    No call is run twice, by this package or by the retries of openai's SDK.
    """
    before = settled(two)
    with storm:
        storm.wait_for(20, LIMIT_S)
        restart_gateway(two)
        storm.wait_for(60, LIMIT_S)
    assert storm.begun == {}
    assert set(storm.unbegun) <= {"outcome_unknown"}
    assert storm.told["whole"] <= settled(two) - before <= storm.calls


def test_the_gateway_is_killed(two: Stack, storm: JsStorm) -> None:
    """SIGKILL: what had begun ends in one typed error, what had not is answered or may have run, and none twice."""
    before = settled(two)
    with storm:
        storm.wait_for(20, LIMIT_S)
        old = two.ground.children["gateway"].process
        old.kill()
        old.wait(LIMIT_S)
        start_gateway(two)
        storm.wait_for(60, LIMIT_S)
    assert set(storm.begun) <= {"truncated"}
    assert set(storm.unbegun) <= {"outcome_unknown"}
    assert storm.told["whole"] <= settled(two) - before <= storm.calls


def test_a_node_is_lost(two: Stack, storm: JsStorm) -> None:
    """Killed under all conversations: those that had begun end in one typed error, all others are answered."""
    before = settled(two)
    with storm:
        storm.wait_for(20, LIMIT_S)
        used = storm.told["keyset"]
        (name,) = [each for each in NODES if used in (two.ground.folder / f"{each}.log").read_text()]
        two.ground.children[name].process.kill()
        storm.wait_for(60, LIMIT_S)
    assert set(storm.begun) <= {"truncated"}
    assert storm.unbegun == {}
    assert settled(two) - before <= storm.calls
