"""What happens on either side of the first authenticated chunk."""

import asyncio
import json
import os

import pytest
from confide_protocol import labels

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.support import CHAT, HttpAnswer, Node, Sealed

pytestmark = pytest.mark.anyio


def is_constant(answer: HttpAnswer, status: int) -> bool:
    return (
        answer.status == status
        and answer.body == labels.PROBLEMS[status]
        and answer.headers
        == {
            "content-type": labels.MEDIA_PROBLEM,
            "cache-control": "no-store",
            "content-length": str(len(labels.PROBLEMS[status])),
        }
    )


def is_constant_400(answer: HttpAnswer) -> bool:
    return is_constant(answer, 400)


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


SPOILED = {
    "nothing": lambda whole: b"",
    "garbage": lambda whole: os.urandom(len(whole)),
    "plain JSON": lambda whole: json.dumps(CHAT).encode(),
    "unknown key": lambda whole: _flip(whole, 0),
    "another suite": lambda whole: _flip(whole, 6),
    "another ML-KEM ciphertext": lambda whole: _flip(whole, 100),
    "another X25519 share": lambda whole: _flip(whole, 7 + 1119),
    "bad tag": lambda whole: _flip(whole, len(whole) - 1),
    "bad chunk": lambda whole: _flip(whole, 7 + 1120 + 20),
    "cut in the header": lambda whole: whole[:5],
    "cut in enc": lambda whole: whole[:500],
    "cut before the chunk": lambda whole: whole[: 7 + 1120],
    "cut in the chunk": lambda whole: whole[:-40],
    "more after the end": lambda whole: whole + b"\0",
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
async def test_every_fault_before_the_boundary_looks_the_same(spoil):
    """Whatever fails before the first authenticated chunk gives one constant, and no engine hears of it."""
    node = Node()
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    assert is_constant_400(await sealed.send(node, [spoil(sealed.whole())]))
    assert not node.engine.requests


@pytest.mark.parametrize("digest", ["00" * 32, "zz" * 32, "", "AB" * 32])
async def test_an_unknown_keyset_in_the_path_is_that_same_constant(digest):
    """The path's digest is only a hint; a wrong one says nothing more than a wrong key does."""
    node = Node()
    answer = await node.call("POST", f"/ohttp/{digest}", [b"x"], {"content-type": labels.MEDIA_REQUEST})
    assert is_constant_400(answer)


async def test_a_replayed_request_is_refused_at_the_boundary():
    """The second identical message is 409, so that its sender knows; the engine runs once."""
    node = Node()
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    whole = sealed.whole()
    assert sealed.open(await sealed.send(node, [whole])).status == 200
    assert is_constant(await sealed.send(node, [whole]), 409)
    assert len(node.engine.requests) == 1


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
async def test_only_bytes_that_authenticate_are_told_to_be_a_replay(spoil):
    """Of a message that was opened, whatever was changed before the boundary looks like any other fault."""
    node = Node()
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    whole = sealed.whole()
    assert sealed.open(await sealed.send(node, [whole])).status == 200
    assert is_constant_400(await sealed.send(node, [spoil(whole)]))


async def test_a_full_store_looks_like_an_unknown_key():
    """Nothing of the message was opened: its sender may seal it anew. What was opened stays a replay."""
    node = Node()
    first, second = [Sealed(node, await node.statement_digest(), CHAT) for _ in range(2)]
    whole = first.whole()
    assert first.open(await first.send(node, [whole])).status == 200
    object.__setattr__(node.holder.current, "replay_capacity", 1)
    assert is_constant_400(await second.send(node))
    assert is_constant(await first.send(node, [whole]), 409)
    assert len(node.engine.requests) == 1


async def test_of_concurrent_replays_exactly_one_runs():
    """Ten copies race; the store admits one."""
    node = Node(ScriptedEngine(step_s=0.001))
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    whole = sealed.whole()
    halves = [whole[:1500], whole[1500:]]
    answers = await asyncio.gather(*(sealed.send(node, list(halves)) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 9
    assert len(node.engine.requests) == 1


async def test_a_request_that_failed_after_its_first_chunk_counts_as_seen():
    """A captured first chunk cannot be tried again with another ending."""
    node = Node()
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    first, rest = sealed.seal(sealed.message[:600]), sealed.seal(sealed.message[600:], final=True)
    cut = await sealed.send(node, [sealed.header + first])
    assert sealed.open(cut).json["error"]["code"] == "truncated"
    assert is_constant(await sealed.send(node, [sealed.header + first + rest]), 409)
    assert not node.engine.requests


@pytest.mark.parametrize("split", [True, False], ids=["in pieces", "at once"])
@pytest.mark.parametrize(
    ("ending", "code", "status"),
    [
        (lambda rest: b"", "truncated", 400),
        (lambda rest: rest[:-20], "decryption_failed", 400),
        (lambda rest: _flip(rest, len(rest) - 1), "decryption_failed", 400),
        (lambda rest: b"\x01", "malformed", 400),
        (lambda rest: b"\0" * 20_000, "malformed", 400),
    ],
)
async def test_a_fault_after_the_boundary_is_sealed(split, ending, code, status):
    """Past the first chunk every refusal is sealed, shaped and signed; the engine is not touched."""
    node = Node()
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    first, rest = sealed.seal(sealed.message[:600]), sealed.seal(sealed.message[600:], final=True)
    pieces = [sealed.header + first, ending(rest)]
    opened = sealed.open(await sealed.send(node, pieces if split else [b"".join(pieces)]))
    assert (opened.status, opened.json["error"]["code"]) == (status, code)
    assert opened.claims.outcome == "refused"
    assert opened.claims.shape == "bucketed"
    assert not node.engine.requests


async def test_an_oversized_request_ends_by_its_limit():
    """Announced or arriving before the boundary: 413 in clear; after it: sealed."""
    node = Node(limits={"max_request_bytes": 4096})
    statement = await node.statement_digest()
    target, media = f"/ohttp/{node.keyset.digest.hex()}", {"content-type": labels.MEDIA_REQUEST}
    announced = await node.call("POST", target, [b"x"], {**media, "content-length": "4097"})
    sealed = Sealed(node, statement, CHAT)
    arriving = await node.call("POST", target, [sealed.header[:100], bytes(4096)], media)
    assert (announced.status, arriving.status) == (413, 413)
    assert announced.body == arriving.body == labels.PROBLEMS[413]
    pieces = [sealed.header + sealed.seal(sealed.message[:600]), sealed.seal(bytes(4096))]
    opened = sealed.open(await sealed.send(node, pieces))
    assert (opened.status, opened.json["error"]["code"]) == (413, "too_large")


async def test_what_is_not_sealed_is_refused():
    """Neither a clear path, nor a clear body under any media type, is ever answered with an answer."""
    node = Node()
    target = f"/ohttp/{node.keyset.digest.hex()}"
    body = json.dumps(CHAT).encode()
    for path, headers, status in (
        ("/v1/chat/completions", {"content-type": "application/json"}, 404),
        (target, {"content-type": "application/json"}, 415),
        (target, {}, 415),
        (target, {"content-type": labels.MEDIA_REQUEST, "content-encoding": "identity"}, 415),
        (target, {"content-type": "message/ohttp-req"}, 415),
        (target, {"content-type": labels.MEDIA_REQUEST, "x-plaintext": "1", "encrypted": "false"}, 400),
    ):
        answer = await node.call("POST", path, [body], headers)
        assert (answer.status, answer.body) == (status, labels.PROBLEMS[status])
    assert (await node.call("GET", target)).status == 405
    assert not node.engine.requests


async def test_a_failed_random_number_generator_gives_no_answer():
    """An all-zero response nonce is never used: the answer is withheld."""
    node = Node()
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    object.__setattr__(node.app._session, "random", bytes)
    answer = await sealed.send(node)
    assert (answer.status, answer.body) == (503, labels.PROBLEMS[503])
