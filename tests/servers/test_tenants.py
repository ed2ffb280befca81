"""What one tenant's request leaves behind is nobody else's, as the server's own counters tell; leaving frees it."""

import time
from pathlib import Path

import pytest

from tests.fakes.stack import ask
from tests.servers.peers import Peer
from tests.servers.spy import Spy
from tests.servers.stack import RemoteStack, processor_s

HITS = "vllm:prefix_cache_hits_total"
# vLLM keeps whole blocks alone, of 128 tokens on CPUs.
LONG = [{"role": "user", "content": " ".join(f"word{number}" for number in range(150))}]
# Without an end of its own, this answer takes half a minute.
ENDLESS = {"max_tokens": 1500, "logit_bias": {"0": -100, "2": -100}}


def hits(stack: RemoteStack, client, **options) -> float:
    """Ask with a long prompt; return how many of its tokens came from the cache."""
    before = stack.metric(HITS)
    ask(client, messages=LONG, max_tokens=2, **options)
    return stack.metric(HITS) - before


def test_equal_prefixes_of_two_tenants_are_told_apart_by_salt(stack: RemoteStack, peer: Peer) -> None:
    """Each finds its own rows again and never the other's, whose prompt is the same to the byte."""
    if peer.name != "vllm":
        pytest.skip(f"{peer.name} has no salts: it caches nothing")
    with stack.openai() as one, stack.openai() as other:
        assert hits(stack, one) == 0
        own = hits(stack, one)
        assert own >= 128
        assert hits(stack, other) == 0
        assert hits(stack, other) == own
        assert hits(stack, one) == own
        # What the gateway or the request calls its user is no part of it.
        assert hits(stack, other, user="one", prompt_cache_key="one") == own


def test_a_server_without_salts_keeps_nothing_of_a_prompt(stack: RemoteStack, peer: Peer, weights: Path) -> None:
    """It reads every token of it again, its own counter says; asked without our words it would have kept them."""
    if peer.name != "llama.cpp":
        pytest.skip(f"{peer.name} has salts")
    spy = Spy(stack, weights)
    counted = [spy.ask(LONG, salt) for salt in (b"\1" * 32, b"\1" * 32, b"\2" * 32)]
    assert [cached for cached, _ in counted] == [0, 0, 0]
    assert [read for _, read in counted] == [spy.count(LONG)] * 3
    # What is left in a slot's memory is there to be found, by a request that lets it be.
    spy.ask(LONG, b"\1" * 32, cache_prompt=True)
    assert spy.ask(LONG, b"\2" * 32, cache_prompt=True)[0] > 128


def test_a_client_that_leaves_ends_its_request(stack: RemoteStack) -> None:
    """The server stops computing within a moment, long before the answer's end."""
    with stack.openai() as client:
        stream = ask(client, stream=True, **ENDLESS)
        events = iter(stream)
        for _ in range(5):
            next(events)
        began_s, before_s = time.monotonic(), processor_s(stack.server_pid)
        next(events)
        time.sleep(0.5)
        busy = (processor_s(stack.server_pid) - before_s) / (time.monotonic() - began_s)
        stream.close()
        end_s, idle = time.monotonic() + 5, busy
        while idle > busy / 4 and time.monotonic() < end_s:
            before_s = processor_s(stack.server_pid)
            time.sleep(0.5)
            idle = (processor_s(stack.server_pid) - before_s) / 0.5
        assert busy > 0.2
        assert idle <= busy / 4
        # And it is at once there for the next.
        assert ask(client, max_tokens=2).usage.completion_tokens == 2
