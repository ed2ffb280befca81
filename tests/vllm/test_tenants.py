"""What one tenant's request leaves behind is nobody else's, as vLLM's own counters tell; leaving frees it."""

import time

from tests.fakes.stack import ask
from tests.vllm.stack import RemoteStack

HITS = "vllm:prefix_cache_hits_total"
RUNNING = "vllm:num_requests_running"
MADE = "vllm:generation_tokens_total"
# vLLM keeps whole blocks alone, of 128 tokens on CPUs.
LONG = [{"role": "user", "content": " ".join(f"word{number}" for number in range(150))}]


def hits(stack: RemoteStack, client, **options) -> float:
    """Ask with a long prompt; return how many of its tokens came from the cache."""
    before = stack.metric(HITS)
    ask(client, messages=LONG, max_tokens=2, **options)
    return stack.metric(HITS) - before


def test_equal_prefixes_of_two_tenants_are_told_apart(stack: RemoteStack) -> None:
    """Each finds its own rows again and never the other's, whose prompt is the same to the byte."""
    with stack.openai() as one, stack.openai() as other:
        assert hits(stack, one) == 0
        own = hits(stack, one)
        assert own >= 128
        assert hits(stack, other) == 0
        assert hits(stack, other) == own
        assert hits(stack, one) == own
        # What the gateway or the request calls its user is no part of it.
        assert hits(stack, other, user="one", prompt_cache_key="one") == own


def test_a_client_that_leaves_ends_its_request(stack: RemoteStack) -> None:
    """vLLM stops computing within a moment, long before the answer's end."""
    before = stack.metric(MADE)
    # Without an end of its own, this answer takes half a minute.
    endless = {"max_tokens": 1500, "logit_bias": {"0": -100, "2": -100}}
    with stack.openai() as client:
        stream = ask(client, stream=True, **endless)
        events = iter(stream)
        for _ in range(5):
            next(events)
        assert stack.metric(RUNNING) == 1
        stream.close()
        end_s = time.monotonic() + 5
        while stack.metric(RUNNING) and time.monotonic() < end_s:
            time.sleep(0.1)
    assert stack.metric(RUNNING) == 0
    assert stack.metric(MADE) - before < 500
