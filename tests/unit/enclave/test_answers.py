"""How answers run, end, and are cut short."""

import asyncio
import json

import pytest
from confide_protocol import labels
from confide_protocol.errors import CapacityExceeded, ContextTooLong, EngineError

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.support import CHAT, HttpAnswer, Node, Sealed

pytestmark = pytest.mark.anyio

STREAM = {**CHAT, "stream": True}
WORDS = [f" word{n}" for n in range(20)]
PREFIX_BYTES, CHUNK_BYTES, FINAL_BYTES = 32, 2 + 512 + 16, 1 + 512 + 16


def chunk_count(answer: HttpAnswer) -> float:
    return (len(answer.body) - PREFIX_BYTES - FINAL_BYTES) / CHUNK_BYTES + 1


def is_power_of_two(count: float) -> bool:
    return count == int(count) and int(count).bit_count() == 1


async def exchange(node: Node, body=STREAM, **options):
    sealed = Sealed(node, await node.statement_digest(), body, **options)
    answer = await sealed.send(node)
    return sealed.open(answer), answer


async def test_every_kind_of_answer_has_the_shape():
    """Streams, bodies, refusals, aborts: fixed chunks, a power of two of them."""
    kinds = [
        (Node(), STREAM),
        (Node(), CHAT),
        (Node(), {"model": "other"}),
        (Node(ScriptedEngine(WORDS)), STREAM),
        (Node(ScriptedEngine(WORDS, fail_at=9, fault=EngineError())), STREAM),
        (Node(ScriptedEngine(WORDS * 40)), STREAM),
        (Node(ScriptedEngine(["é" * 300] * 30)), STREAM),
    ]
    for node, body in kinds:
        _, answer = await exchange(node, body)
        assert is_power_of_two(chunk_count(answer))


async def test_a_bucketed_stream_flushes_eight_tokens_at_a_time():
    """Twenty tokens make three events of text, each in a chunk of its own."""
    opened, answer = await exchange(Node(ScriptedEngine(WORDS)))
    texts = [json.loads(e[6:])["choices"][0]["delta"].get("content") for e in opened.events[:-1]]
    assert texts == ["".join(WORDS[:8]), "".join(WORDS[8:16]), "".join(WORDS[16:]), None]
    assert [len(piece) for piece in answer.pieces[:3]] == [PREFIX_BYTES + CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES]


async def test_tokens_without_text_flush_filler_all_the_same():
    """Held-back text must not show as a missing chunk."""
    _, answer = await exchange(Node(ScriptedEngine([""] * 16 + ["late"])))
    assert [len(piece) for piece in answer.pieces[:2]] == [PREFIX_BYTES + CHUNK_BYTES, CHUNK_BYTES]


async def test_shape_none_sends_each_token_as_it_comes():
    """Without a shape there is one event a token, and counts are exact."""
    opened, answer = await exchange(Node(ScriptedEngine(WORDS)), shape="none")
    assert opened.text == "".join(WORDS)
    assert len(answer.pieces) >= len(WORDS)
    assert (opened.claims.prompt_tokens, opened.claims.completion_tokens) == (4, 20)


async def test_the_least_temperature_has_a_receipt():
    """A float that takes hundreds of decimal places is signed as any other."""
    tiny = {"temperature": 5e-324, "top_p": 1e-300}
    opened, _ = await exchange(Node(ScriptedEngine(WORDS)), {**CHAT, **tiny})
    assert {name: float(opened.claims.sampling[name]) for name in tiny} == tiny


@pytest.mark.parametrize("shape", ["bucketed", "none"])
async def test_a_failing_stream_ends_with_an_error_and_a_receipt(shape):
    """After the head, a failure is an error event, no [DONE], outcome aborted, and the text so far committed."""
    node = Node(ScriptedEngine(WORDS, fail_at=9, fault=EngineError("prompt text")))
    opened, _ = await exchange(node, shape=shape)
    assert opened.claims.outcome == "aborted"
    assert json.loads(opened.events[-1][6:])["error"]["code"] == "engine"
    assert b"[DONE]" not in opened.body
    assert b"prompt text" not in opened.body
    assert opened.claims.message_count == 1


@pytest.mark.parametrize("body", [STREAM, CHAT])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (CapacityExceeded(), 503, "capacity_exceeded"),
        (ContextTooLong(), 413, "context_too_long"),
        (EngineError("prompt text"), 500, "engine"),
        (RuntimeError("prompt text"), 500, "engine"),
    ],
)
async def test_a_failure_before_the_first_batch_has_its_status(body, fault, status, code):
    """What fails early is answered with a status, sealed, in OpenAI's shape, without the engine's own text."""
    opened, _ = await exchange(Node(ScriptedEngine(fail_at=0, fault=fault)), body)
    assert (opened.status, opened.json["error"]["code"]) == (status, code)
    assert opened.claims.outcome == "refused"
    assert b"prompt text" not in opened.body


@pytest.mark.parametrize(("body", "outcome"), [(STREAM, "aborted"), (CHAT, "refused")])
async def test_a_slow_answer_ends_by_its_limit(body, outcome):
    """`answer_timeout_s` stops the engine; the client gets a signed end."""
    node = Node(ScriptedEngine(WORDS * 10, step_s=0.02), limits={"answer_timeout_s": 0.3})
    opened, _ = await exchange(node, body)
    assert opened.claims.outcome == outcome
    assert b'"code":"timeout"' in opened.body
    assert node.engine.running == 0


async def test_an_answer_ends_while_its_receipt_can_be_accepted():
    """No answer runs on past the grace after its keyset's end: no client takes a receipt that is later."""
    node = Node(ScriptedEngine(WORDS * 100, step_s=0.02))
    generation, statement = node.holder.current, await node.statement_digest()
    node.clock.now = generation.keyset.not_after_unix_s + labels.KEYSET_GRACE_S - 0.2
    sealed, answer = Sealed(node, statement, STREAM, keyset=generation.keyset), HttpAnswer(200)
    answer.headers["content-type"] = labels.MEDIA_RESPONSE

    async def body():
        yield sealed.whole()

    async def reply(data: bytes) -> None:
        answer.body += data

    await node.app._session.run(generation, body(), "", reply)
    opened = sealed.open(answer)
    assert opened.claims.outcome == "aborted"
    assert b'"code":"timeout"' in opened.body


@pytest.mark.parametrize("shape", ["bucketed", "none"])
async def test_the_engine_stops_for_a_client_that_left(shape):
    """A disconnect after the first piece closes the generator within a step."""
    node = Node(ScriptedEngine(WORDS * 100, step_s=0.005))
    sealed = Sealed(node, await node.statement_digest(), STREAM, shape=shape)
    answer = await sealed.send(node, leave_after=1)
    assert not answer.ended
    assert (node.engine.cancelled, node.engine.running) == (1, 0)


async def test_the_engine_stops_for_a_client_that_left_before_the_first_token():
    """Also while a plain body is still being made."""
    node = Node(ScriptedEngine(WORDS * 100, step_s=0.005))
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    call = asyncio.create_task(sealed.send(node))
    await node.engine.started.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert (node.engine.cancelled, node.engine.running) == (1, 0)


async def test_a_stalled_reader_ends_the_exchange():
    """A peer that takes no bytes for `idle_timeout_s` holds no engine."""
    node = Node(ScriptedEngine(WORDS, step_s=0.001), limits={"idle_timeout_s": 0.05})
    sealed = Sealed(node, await node.statement_digest(), STREAM, shape="none")

    async def stall(_: HttpAnswer) -> None:
        await asyncio.sleep(10)

    answer = await sealed.send(node, on_piece=stall)
    assert not answer.ended
    assert node.engine.running == 0


@pytest.mark.parametrize(("body", "outcome"), [(STREAM, "aborted"), (CHAT, "refused")])
async def test_a_shutdown_ends_answers_sealed_after_the_grace(body, outcome):
    """SIGTERM gives answers `shutdown_grace_s`; then they end with a signed reason."""
    node = Node(ScriptedEngine(WORDS * 100, step_s=0.01), limits={"shutdown_grace_s": 0.1})
    sealed = Sealed(node, await node.statement_digest(), body)
    call = asyncio.create_task(sealed.send(node))
    await node.engine.started.wait()
    node.app.stop()
    opened = sealed.open(await call)
    assert b'"code":"shutting_down"' in opened.body
    assert opened.claims.outcome == outcome
    assert node.engine.running == 0


async def test_one_bad_exchange_does_not_disturb_another():
    """Faults stay in their own exchange."""
    node = Node(ScriptedEngine(WORDS, step_s=0.001))
    statement = await node.statement_digest()
    good = [Sealed(node, statement, STREAM) for _ in range(5)]
    bad = [Sealed(node, statement, b"{") for _ in range(5)]
    answers = await asyncio.gather(*(each.send(node) for each in [*good, *bad]))
    assert [g.open(a).text for g, a in zip(good, answers[:5], strict=True)] == ["".join(WORDS)] * 5
    assert {b.open(a).json["error"]["code"] for b, a in zip(bad, answers[5:], strict=True)} == {"invalid_json"}
    assert all(a.headers["content-type"] == labels.MEDIA_RESPONSE for a in answers)
