"""A crowded enclave: many tenants at once, long and short, streamed and whole, some of them leaving early."""

import asyncio
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confide.session import ClientSession, Exchange, Receipt, Verified
from confide_attestation.result import AttestedKeyset
from confide_enclave.api.routes import PATH_CHAT, PATH_COMPLETIONS, PATH_RESPONSES
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.torch_engine import TorchEngine
from confide_protocol import labels
from confide_protocol.keyset import Manifest

from tests.fakes.peer import a_peer
from tests.unit.enclave.support import NOW, Node

AT_ONCE = 24
TENANTS = 5
LEAVE_EARLY = 0.15
LONGEST_ANSWER = 32
WORDS = (
    "the",
    "cat",
    "told",
    "a",
    "very",
    "old",
    "story",
    "of",
    "rain,",
    "été,",
    "東京",
    "and",
    "7 * 6",
    "at\nall",
)
# What decides an answer beside temperature and seed, one or two at a time.
MORE: Sequence[dict[str, Any]] = (
    {"stop": "e"},
    {"stop": ["\n", "the"]},
    {"top_k": 5},
    {"min_p": 0.05},
    {"frequency_penalty": 0.7, "presence_penalty": -0.3},
    {"repetition_penalty": 1.3},
    {"logit_bias": {"40": 5, "41": -100, "2": -1.5}},
)
MORE_IN_CHAT: Sequence[dict[str, Any]] = (
    {"logprobs": True, "top_logprobs": 3},
    {"response_format": {"type": "regex", "pattern": "[a-z]{1,9}( [0-9]{2,7}){0,9}"}},
    {"response_format": {"type": "json_object"}},
    {"tools": [{"type": "function", "function": {"name": "look"}}], "tool_choice": "required"},
)


@dataclass(frozen=True)
class Run:
    """What an enclave signed, and by which settings."""

    limits: EngineLimits
    manifest: Manifest
    receipts: Sequence[Receipt] = field(repr=False)
    left: int


def crowd(weights: Path, name: str, limits: EngineLimits, answers: int, seed: int) -> Run:
    """Serve that many whole answers, beside requests that are broken off or too long."""
    return asyncio.run(_crowd(weights, name, limits, answers, random.Random(seed)))


async def _crowd(weights: Path, name: str, limits: EngineLimits, answers: int, rng: random.Random) -> Run:
    node = Node(TorchEngine.load(weights, name, limits))
    statement = await node.statement_digest()
    shapes = [labels.SHAPE_NONE, labels.SHAPE_BUCKETED]
    tenants = [_tenant(node, statement, shapes[number % 2]) for number in range(TENANTS)]
    receipts: list[Receipt] = []
    left = 0
    room = asyncio.Semaphore(AT_ONCE)

    async def one(tenant: ClientSession, path: str, body: bytes, leave_after: int | None) -> None:
        nonlocal left
        async with room:
            exchange = await _ask(node, tenant, path, body, leave_after)
        if exchange is None:
            left += 1
        elif exchange.receipt is not None and exchange.receipt.claims.outcome == "complete":
            receipts.append(exchange.receipt)

    try:
        while len(receipts) < answers:
            asked = [(rng.choice(tenants), *_request(rng, name)) for _ in range(answers - len(receipts))]
            leaving = [rng.randrange(1, 4) if rng.random() < LEAVE_EARLY else None for _ in asked]
            await asyncio.gather(*(one(*each, leave) for each, leave in zip(asked, leaving, strict=True)))
    finally:
        await node.engine.close()
    return Run(limits, node.manifest, receipts, left)


def _tenant(node: Node, statement: bytes, shape: str) -> ClientSession:
    """A client with a cache key of its own, which takes the enclave for verified."""
    policy = a_peer().policy
    policy = policy.model_copy(update={"session": policy.session.model_copy(update={"shape": shape})})
    session = ClientSession(policy, floor=0, allow_simulated=True, random=os.urandom)
    keyset = AttestedKeyset(node.keyset, node.manifest, statement, policy.digest, bytes(32), int(NOW) + 600)
    result: Any = None
    session.verified = Verified(result, keyset, b"", bytes(32))
    return session


async def _ask(
    node: Node, tenant: ClientSession, path: str, body: bytes, leave_after: int | None
) -> Exchange | None:
    """Ask, and check the receipt; None where the caller left before the end."""
    sent = tenant.seal(tenant.call("POST", path, [("content-type", "application/json")], body), int(NOW))
    answer = await node.call("POST", sent.path, [sent.body], dict(sent.header_fields), leave_after=leave_after)
    if not answer.ended:
        return None
    sent.answered(answer.status, answer.headers["content-type"])
    sent.push(answer.body)
    sent.finish()
    return sent


def _request(rng: random.Random, model: str) -> tuple[str, bytes]:
    """Draw a request; half of them sample, and some of those leave the seed to the enclave."""
    words = " ".join(rng.choices(WORDS, k=min(int(rng.expovariate(0.12)) + 1, 24)))
    path = rng.choice([PATH_CHAT, PATH_CHAT, PATH_COMPLETIONS, PATH_COMPLETIONS, PATH_RESPONSES])
    limit, streamed = rng.randint(1, LONGEST_ANSWER), rng.random() < 0.5
    tree: dict[str, Any] = {"model": model, "temperature": 0, "stream": streamed}
    if rng.random() < 0.5:
        tree |= {"temperature": rng.choice([0.3, 0.8, 1.7]), "top_p": rng.choice([1.0, 0.9, 0.5])}
    if path == PATH_RESPONSES:
        return path, json.dumps({**tree, "input": words, "max_output_tokens": limit}).encode()
    tree["max_tokens"] = limit
    if rng.random() < 0.5:
        tree["seed"] = rng.randrange(-(1 << 63), 1 << 63)
    if streamed:
        tree["stream_options"] = {"include_usage": rng.random() < 0.5}
    if rng.random() < 0.4:
        tree |= rng.choice(MORE)
    if rng.random() < 0.15:
        tree |= {"n": 2} if streamed else rng.choice([{"n": 3}, {"n": 2, "best_of": 3}, {"best_of": 2}])
    if path == PATH_COMPLETIONS:
        if rng.random() < 0.2:
            tree["logprobs"] = rng.randrange(4)
        return path, json.dumps({**tree, "prompt": words}).encode()
    if rng.random() < 0.4:
        tree |= rng.choice(MORE_IN_CHAT)
    messages = [{"role": "user", "content": words}]
    if rng.random() < 0.2:
        messages.insert(0, {"role": "system", "content": "Say it again."})
    return path, json.dumps({**tree, "messages": messages}).encode()
