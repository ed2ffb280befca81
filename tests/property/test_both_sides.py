"""Whatever the enclave answers, the client accepts its receipt, or says in one typed error why not."""

import asyncio
import json
import os
from typing import Any

from confide.session import ClientSession, Exchange, Verified
from confide_attestation.result import AttestedKeyset
from confide_protocol.errors import CapacityExceeded, EngineError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.engine import ScriptedEngine
from tests.fakes.peer import a_peer
from tests.unit.enclave.support import NOW, Node

ODD_WORDS = ["", "\n\n", ": ", "data: [DONE]\n\n", "\r", "\u2028", "\x85", "\x00", "é", "\ud800", '"}']
WORD = st.text(max_size=6) | st.sampled_from(ODD_WORDS)
FAULT = st.sampled_from([None, None, EngineError("x"), CapacityExceeded(), RuntimeError("x"), TimeoutError()])
CALLS = st.sampled_from(
    [
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("POST", "/v1/completions", {"prompt": "hi"}),
        ("POST", "/v1/completions", {}),
        ("POST", "/v1/nothing", {}),
        ("PATCH", "/v1/completions", {}),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/scripted", None),
        ("GET", "/v1/models/other", None),
        ("HEAD", "/v1/models", None),
    ]
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "stream": st.booleans(),
        "stream_options": st.sampled_from([{"include_usage": True}, {"include_usage": False}, {}]),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "seed": st.integers(-(1 << 63), (1 << 63) - 1),
        "max_tokens": st.integers(1, 30),
        "n": st.sampled_from([1, 2]),
        "stop": st.sampled_from(["x", ["a", "b"], []]),
    },
)


def client_of(node: Node, statement_digest: bytes, shape: str) -> ClientSession:
    policy = a_peer().policy
    policy = policy.model_copy(update={"session": policy.session.model_copy(update={"shape": shape})})
    session = ClientSession(policy, floor=0, allow_simulated=True, random=os.urandom)
    keyset = AttestedKeyset(node.keyset, node.manifest, statement_digest, policy.digest, bytes(32), int(NOW) + 600)
    result: Any = None
    session.verified = Verified(result, keyset, b"", bytes(32))
    return session


async def exchange(node: Node, shape: str, method: str, path: str, body: bytes, cut: int) -> tuple[Exchange, bytes]:
    session = client_of(node, await node.statement_digest(), shape)
    sent = session.seal(session.call(method, path, [("content-type", "application/json")], body), int(NOW))
    pieces = [sent.body[:cut], sent.body[cut:]]
    answer = await node.call("POST", sent.path, pieces, dict(sent.header_fields))
    sent.answered(answer.status, answer.headers["content-type"])
    shown: list[bytes] = []
    for at in range(0, len(answer.body), 700):
        shown += sent.push(answer.body[at : at + 700])
    return sent, b"".join(shown + sent.finish())


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(WORD, min_size=1, max_size=25),
    fail_at=st.integers(0, 25),
    fault=FAULT,
    shape=st.sampled_from(["none", "bucketed"]),
    call=CALLS,
    options=OPTIONS,
    cut=st.integers(1, 1100),
)
def test_every_answer_has_a_receipt_that_fits(
    words: list[str],
    fail_at: int,
    fault: Exception | None,
    shape: str,
    call: tuple[str, str, dict[str, Any] | None],
    options: dict[str, Any],
    cut: int,
) -> None:
    """Odd text, faults at any token, every path and option: the two sides commit to the same bytes and messages."""
    method, path, tree = call
    node = Node(ScriptedEngine(words, fail_at=fail_at, fault=fault))
    body = b"" if tree is None else json.dumps({"model": "scripted", **tree, **options}).encode()
    try:
        sent, shown = asyncio.run(exchange(node, shape, method, path, body, cut))
    except EngineError:  # signed as aborted
        return
    assert sent.receipt is not None
    assert sent.head is not None
    assert (sent.receipt.claims.outcome == "complete") == (sent.head.status == 200)
    if sent.streamed:
        assert shown.endswith(b"data: [DONE]\n\n")
