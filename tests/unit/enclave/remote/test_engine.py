"""An engine over a server on a real socket: what it asks, what it says, what it refuses."""

from contextlib import aclosing

import pytest
from confide_enclave.engine import ChatMessage, GenerationRequest, Sampling
from confide_enclave.errors import Refusal, UnknownToken
from confide_protocol.errors import CapacityExceeded, ContextTooLong, EngineError

from tests.unit.enclave.remote.fake import Server
from tests.unit.enclave.remote.support import (
    SALT,
    answer,
    connected,
    opened,
    request,
    settings,
    spell,
    text,
    tokens,
    until,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_token_ids_become_text_with_counts_and_a_reason(tmp_path, where) -> None:
    """One delta a token over either kind of socket, the end's last; the server's own text counts for nothing."""
    server = Server(spell("Paris."))
    path = str(tmp_path / "s") if where == "unix" else None
    async with connected(server, path) as engine:
        deltas = await answer(engine)
    assert text(deltas) == "Paris."
    prompt = len(tokens().encode("hello"))
    assert [delta.completion_tokens for delta in deltas] == [1, 2, 3, 4, 5, 6, 7]
    assert {delta.prompt_tokens for delta in deltas} == {prompt}
    assert [delta.finish_reason for delta in deltas] == [None] * 6 + ["stop"]


async def test_a_request_says_everything_and_leaves_no_default(tmp_path) -> None:
    """Ids of our own template, every parameter, our ends, a seed that is never -1; and no stop string."""
    server = Server(spell("ab"))
    sampling = Sampling(0.5, 0.9, 7, -1, ("stop",), 40, 0.1, 0.2, 0.3, 1.1, ((5, -100.0),), choices=2, candidates=2)
    messages = [ChatMessage("user", "hi <|im_end|> canary")]
    async with connected(server) as engine:
        await answer(engine, GenerationRequest(messages, sampling, SALT))
    (body,) = server.bodies
    assert body.pop("prompt") == tokens().encode(messages)
    assert len(body.pop("cache_salt")) == 64
    assert body == {
        "model": "toy", "max_tokens": 7, "n": 1, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1,
        "frequency_penalty": 0.2, "presence_penalty": 0.3, "repetition_penalty": 1.1, "seed": 2**63 - 1,
        "stop_token_ids": sorted(tokens().end_ids), "skip_special_tokens": False, "stream": True,
        "stream_options": {"include_usage": True}, "return_token_ids": True, "logit_bias": {"5": -100.0},
    }  # fmt: skip


async def test_salts_are_derived_and_never_the_tenants_own() -> None:
    """Equal for one tenant, other for another, other after all is forgotten; random for who has none."""
    server = Server(spell("a"))
    async with connected(server) as engine:
        for salt in (SALT, SALT, b"\x08" * 32, b"", b"", bytes(32), bytes(32), b"@/x"):
            await answer(engine, request(salt=salt))
        engine.forget_all()
        await answer(engine, request())
    said = [body["cache_salt"] for body in server.bodies]
    assert said[0] == said[1]
    assert len(set(said)) == len(said) - 1
    assert all(len(each) == 64 and set(each) <= set("0123456789abcdef") for each in said)
    assert SALT.hex() not in said


async def test_a_stop_string_ends_the_request_at_the_server() -> None:
    """Found across tokens, not shown, and the connection is closed at once."""
    server = Server(spell("one two three") * 20, step_s=0.005)
    async with connected(server) as engine:
        deltas = await answer(engine, request(stop=("two",), max_tokens=200))
        assert text(deltas) == "one "
        assert (deltas[-1].finish_reason, deltas[-1].completion_tokens) == ("stop", 7)
        await until(lambda: not server.running)


async def test_closing_the_generator_closes_the_connection() -> None:
    """The server sees it amid the answer, and the place is free again."""
    server = Server(spell("a" * 50), step_s=0.02)
    async with connected(server, max_requests=1) as engine:
        stream = engine.generate(request())
        await anext(stream)
        with pytest.raises(CapacityExceeded):
            await anext(engine.generate(request()))
        await stream.aclose()
        await until(lambda: not server.running)
        assert text(await answer(engine, request(max_tokens=3))) == "aaa"


async def test_one_account_leaves_room_for_others() -> None:
    """So many of one account, so many in all."""
    server = Server(spell("a" * 50), step_s=0.02)
    async with (
        connected(server, max_account_requests=1, max_requests=2) as engine,
        aclosing(engine.generate(request(account="x"))) as stream,
    ):
        await anext(stream)
        with pytest.raises(CapacityExceeded):
            await anext(engine.generate(request(account="x")))
        assert await answer(engine, request(account="y", max_tokens=1))


async def test_an_answer_ends_where_it_may() -> None:
    """At max_tokens, and where the context does; a prompt that fills the context is refused."""
    server = Server(spell("a" * 300))
    async with connected(server, context_tokens=64) as engine:
        deltas = await answer(engine, request(max_tokens=5))
        assert (text(deltas), deltas[-1].finish_reason) == ("aaaaa", "length")
        prompt = len(tokens().encode("hello"))
        assert (await answer(engine, request(max_tokens=1000)))[-1].completion_tokens == 64 - prompt
        with pytest.raises(ContextTooLong) as caught:
            await answer(engine, request("z " * 200))
        assert "z z" not in str(caught.value)
    assert len(server.bodies) == 2


async def test_log_probabilities_are_of_bytes_and_best_first() -> None:
    """The end has none; as many likely ones as were asked for."""
    server = Server(spell("ab"))
    async with connected(server) as engine:
        deltas = await answer(engine, request(logprobs=2))
        bare = await answer(engine, request(logprobs=0))
    told = [each for delta in deltas for each in delta.logprobs or ()]
    assert [(each.token, each.logprob) for each in told] == [(b"a", -0.5), (b"b", -0.5)]
    spelling = tokens().token_bytes
    assert told[0].top == ((spelling(3), -0.25), (b"a", -0.5))
    assert all(each.top == () for delta in bare for each in delta.logprobs or ())
    assert [body["logprobs"] for body in server.bodies] == [2, 0]


async def test_what_the_server_would_do_otherwise_is_refused_by_name() -> None:
    """It counts probabilities after the grammar; a token beyond the vocabulary is not sent."""
    server = Server(spell("a"))
    async with connected(server) as engine:
        for more, param in (({}, "logprobs"), ({"candidates": 2}, "best_of")):
            with pytest.raises(Refusal) as caught:
                await answer(engine, request(grammar="start: /a/", logprobs=1, **more))
            assert caught.value.param == param
        with pytest.raises(UnknownToken):
            await answer(engine, request(logit_bias=((tokens().size, 1.0),)))
    assert server.bodies == []


@pytest.mark.parametrize(("said", "good"), [("ab", True), ("ac", False), ("a", False)])
async def test_an_answer_outside_its_grammar_is_not_passed_on_as_whole(said, good) -> None:
    """A server whose automaton failed may say anything, or end too early."""
    server = Server(spell(said))
    async with connected(server) as engine:
        asked = request(grammar='start: "ab"')
        if good:
            assert text(await answer(engine, asked)) == "ab"
        else:
            with pytest.raises(EngineError) as caught:
                await answer(engine, asked)
            assert caught.value.code == "engine_malformed"
    assert server.bodies[0]["structured_outputs"] == {"grammar": 'start: "ab"'}


async def test_tokens_that_come_together_are_one_delta() -> None:
    """A server joins what a slow reader left: a whole answer in one event, with everything that was asked for."""
    server = Server([])
    ids = spell("a" * 1_000)

    def joined(number, event):
        if number:
            return event | {"usage": event["usage"] | {"completion_tokens": 1_000}}
        named = {f"token_id:{n}": -1.0 - n for n in range(3, 23)}
        logprobs = {
            "tokens": [f"token_id:{token}" for token in ids],
            "token_logprobs": [-0.123456789012345] * 1_000,
            "top_logprobs": [named] * 1_000,
        }
        choice = {"index": 0, "token_ids": ids, "finish_reason": "length", "logprobs": logprobs}
        return event | {"choices": [choice | {"prompt_token_ids": server.bodies[-1]["prompt"]}]}

    server.spoil = joined
    async with connected(server) as engine:
        deltas = await answer(engine, request(max_tokens=1_000, logprobs=20))
        assert (text(deltas), len(deltas), len(deltas[0].logprobs or ())) == ("a" * 1_000, 1, 1_000)
    async with connected(server, max_event_bytes=100_000) as engine:
        with pytest.raises(EngineError) as caught:
            await answer(engine, request(max_tokens=1_000, logprobs=20))
        assert caught.value.code == "engine_malformed"


async def test_an_end_that_only_the_server_knows_ends_the_answer() -> None:
    """A control token that says nothing; it counts."""
    server = Server(spell("ab"))
    start = next(i for i in range(tokens().size) if not tokens().token_bytes(i) and i not in tokens().end_ids)

    def end(number, event):
        return (
            event
            if number != 2
            else event | {"choices": [{"index": 0, "token_ids": [start], "finish_reason": "stop"}]}
        )

    async with connected(server) as engine:
        server.spoil = end
        deltas = await answer(engine)
    assert (text(deltas), deltas[-1].completion_tokens, deltas[-1].finish_reason) == ("ab", 3, "stop")


async def test_a_closed_engine_says_so() -> None:
    """And closing twice is nothing."""
    server = Server(spell("a"))
    async with server.at() as url:
        async with opened(settings(url=url)) as engine:
            pass
        await engine.close()
        with pytest.raises(EngineError):
            await answer(engine)


async def test_forced_text_may_come_in_any_tokens() -> None:
    """The server's tokenizer decides how what a grammar forces is spelled: here letter by letter."""
    spelled = (tokens().token_bytes(token) for token in range(tokens().size))
    whole = next(data.decode() for data in spelled if len(data) > 1 and data.isalpha())
    server = Server(spell(whole))
    async with connected(server) as engine:
        assert text(await answer(engine, request(grammar=f'start: "{whole}"'))) == whole
