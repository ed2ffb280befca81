"""The engine as its callers see it, on a toy model: joining, leaving, limits, faults, and what is left behind."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from confide_enclave.engine import ChatMessage, Delta, GenerationRequest, grammar
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.torch_engine import TorchEngine
from confide_enclave.errors import GrammarTooComplex
from confide_protocol.errors import CapacityExceeded, ConfigError, ContextTooLong, EngineError, LocalStateError
from llguidance import LLMatcher, LLParserLimits

from tests.fakes import gguf as fake
from tests.fakes.asking import ask, collect

pytestmark = pytest.mark.anyio
LIMITS = EngineLimits(max_sequences=3, max_waiting=2, context_tokens=128, prefill_chunk_tokens=8, threads=1)


@asynccontextmanager
async def running(toy: Path) -> AsyncIterator[TorchEngine]:
    engine = TorchEngine.load(toy, "toy", LIMITS)
    try:
        yield engine
    finally:
        await engine.close()


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def holds(engine: TorchEngine, requests: int) -> None:
    """Wait until the engine holds so many requests."""
    async with asyncio.timeout(5):
        while len(engine._admitted) != requests:  # noqa: ASYNC110 - the count changes on another thread
            await asyncio.sleep(0.001)


def remains(engine: TorchEngine) -> int:
    """Rows of the cache that are not zero."""
    pool = engine._runner._pool
    return int(pool.data.count_nonzero() + pool.tops.count_nonzero())


async def test_deltas_count_and_end(toy: Path) -> None:
    """One delta per token, running counts, and exactly one finish reason, on the last."""
    async with running(toy) as engine:
        deltas = await collect(engine, ask(max_tokens=6))
        assert [delta.completion_tokens for delta in deltas] == list(range(1, len(deltas) + 1))
        assert {delta.prompt_tokens for delta in deltas} == {4}
        assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
        assert deltas[-1].finish_reason == "length"


async def test_requests_beside_one_another_answer_as_alone(toy: Path) -> None:
    """Requests that join and leave a running batch get the text that they get alone."""
    asked = [ask("abc" * n, 10 + 5 * n, temperature=0.8 * (n % 2), seed=n) for n in range(1, 6)]
    async with running(toy) as engine:
        alone = [text(await collect(engine, each)) for each in asked]
        crowd = await asyncio.gather(*(collect(engine, each) for each in asked))
        assert [text(deltas) for deltas in crowd] == alone
        assert len(set(alone)) == len(alone)
        await holds(engine, 0)
        assert remains(engine) == 0


async def test_same_seed_same_text(toy: Path) -> None:
    """A seed fixes the answer; another gives another."""
    async with running(toy) as engine:
        first, again, other = [
            text(await collect(engine, ask(max_tokens=30, temperature=1.0, seed=seed))) for seed in (3, 3, 4)
        ]
        assert first == again != other


async def test_stop_string(toy: Path) -> None:
    """The answer ends before the stop string and says so."""
    async with running(toy) as engine:
        whole = text(await collect(engine, ask(max_tokens=30)))
        stop = whole[10:13]
        deltas = await collect(engine, ask(max_tokens=30, stop=(stop,)))
        assert text(deltas) == whole[: whole.index(stop)]
        assert deltas[-1].finish_reason == "stop"


async def test_context(toy: Path) -> None:
    """A prompt that fills the context is refused; otherwise the answer takes what is left at most."""
    async with running(toy) as engine:
        with pytest.raises(ContextTooLong):
            await collect(engine, ask("a" * 128))
        deltas = await collect(engine, ask("a" * 120, max_tokens=1_000))
        assert deltas[-1].completion_tokens <= 8
        assert deltas[-1].finish_reason == "length"
        with pytest.raises(LocalStateError):
            await collect(engine, ask(temperature=float("nan")))
        assert len(engine._admitted) == 0


async def test_capacity(toy: Path) -> None:
    """Beyond running and waiting requests nobody is let in; a place that frees is given again."""
    async with running(toy) as engine:
        crowd = [engine.generate(ask("abc", max_tokens=120)) for _ in range(5)]
        firsts = [asyncio.create_task(anext(deltas)) for deltas in crowd]
        await holds(engine, 5)
        with pytest.raises(CapacityExceeded):
            await collect(engine, ask())
        for task, deltas in zip(firsts, crowd, strict=True):
            task.cancel()
            await asyncio.wait([task])
            await deltas.aclose()
        await holds(engine, 0)
        assert await collect(engine, ask(max_tokens=3))
        assert remains(engine) == 0


async def test_leaving_frees_at_once(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After aclose at most the step under way is finished; the rows are zero and the place is free."""
    async with running(toy) as engine:
        steps = 0
        run = engine._runner.run

        def counted(step):
            nonlocal steps
            steps += 1
            return run(step)

        monkeypatch.setattr(engine._runner, "run", counted)
        deltas = engine.generate(ask(max_tokens=120))
        await anext(deltas)
        await deltas.aclose()
        before = steps
        await holds(engine, 0)
        assert steps <= before + 1
        assert remains(engine) == 0


async def test_a_dropped_generator_leaves_too(toy: Path) -> None:
    """A caller that forgets to close is noticed when its generator is collected."""
    async with running(toy) as engine:
        deltas = engine.generate(ask(max_tokens=120))
        await anext(deltas)
        del deltas
        gc.collect()
        await holds(engine, 0)


async def test_a_failed_step_ends_its_own_requests_only(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everyone in the step gets EngineError without the fault's text; those who wait are served; rows are zero."""
    async with running(toy) as engine:
        run, broken = engine._runner.run, 4

        def fails_once(step):
            nonlocal broken
            broken -= 1
            if broken == 0:
                run(step)
                raise RuntimeError("CANARY")
            return run(step)

        monkeypatch.setattr(engine._runner, "run", fails_once)
        asked = (collect(engine, ask("ab" * n, 30)) for n in range(1, 6))
        results = await asyncio.gather(*asked, return_exceptions=True)
        failed = [result for result in results if isinstance(result, Exception)]
        assert 1 <= len(failed) <= 3
        assert {type(fault) for fault in failed} == {EngineError}
        assert "CANARY" not in "".join(map(str, failed)) + "".join(capsys.readouterr())
        assert await collect(engine, ask())
        assert remains(engine) == 0


async def test_numbers_that_are_not_finite(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of NaN ends that request with EngineError, and no other."""
    async with running(toy) as engine:
        forward = engine._runner._model.forward

        def poisoned(batch, pool):
            logits = forward(batch, pool)
            logits[batch.tokens[batch.wanted] == engine._tokens.encode("Z")[0]] = torch.nan
            return logits

        monkeypatch.setattr(engine._runner._model, "forward", poisoned)
        good, bad = await asyncio.gather(
            collect(engine, ask("hello", 9)), collect(engine, ask("Z", 9)), return_exceptions=True
        )
        assert len(good) == 9
        assert isinstance(bad, EngineError)


async def test_close_ends_whoever_waits(toy: Path) -> None:
    """Closing gives EngineError to all, leaves a zeroed cache, and ends the thread; later requests are refused."""
    async with running(toy) as engine:
        tasks = [asyncio.create_task(collect(engine, ask(max_tokens=120))) for _ in range(5)]
        await holds(engine, 5)
        await asyncio.sleep(0.01)
        await engine.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {EngineError}
        assert (remains(engine), len(engine._admitted)) == (0, 0)
        assert not engine._thread.is_alive()
        with pytest.raises(EngineError, match="closed"):
            await collect(engine, ask())


async def test_the_thread_ends_by_its_own_word(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault outside a step closes the engine for everybody instead of leaving them to wait."""
    async with running(toy) as engine:

        def broken(pages) -> None:
            raise MemoryError

        monkeypatch.setattr(engine._runner, "wipe", broken)
        results = await asyncio.gather(
            *(collect(engine, ask(max_tokens=n)) for n in (3, 50, 60)), return_exceptions=True
        )
        assert {type(result) for result in results} == {EngineError}
        with pytest.raises(EngineError, match="closed"):
            await collect(engine, ask())
    assert threading.active_count() < 50


async def test_chat_and_text_prompts_differ(toy: Path) -> None:
    """Messages go through the model's template; a plain text does not."""
    async with running(toy) as engine:
        messages = [ChatMessage("user", "hello")]
        chat = await collect(engine, GenerationRequest(messages, ask().sampling, bytes(32)))
        plain = await collect(engine, ask())
        assert chat[-1].prompt_tokens > plain[-1].prompt_tokens == 4


def test_a_bad_file_is_a_config_error(tmp_path: Path) -> None:
    """Loading fails with file, field and remedy; no thread stays behind."""
    path, before = tmp_path / "bad.gguf", threading.active_count()
    tensors = fake.toy_tensors()
    del tensors["blk.0.attn_norm.weight"]
    path.write_bytes(fake.write(fake.toy_metadata(), tensors))
    with pytest.raises(ConfigError, match=r"blk\.0\.attn_norm\.weight: is missing"):
        TorchEngine.load(path, "toy", LIMITS)
    assert threading.active_count() == before


async def test_a_grammar_that_breaks_amid_an_answer(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller learns that its own format was too much; neighbours, and what the cache keeps, stay."""
    limits = LLParserLimits(step_lexer_fuel=200, max_lexer_states=1_000, verbose_errors=False)
    monkeypatch.setattr(grammar, "_LIMITS", limits)
    rule = LLMatcher.grammar_from_regex("(a|b)*a(a|b){18}c")
    async with running(toy) as engine:
        alone = text(await collect(engine, ask(max_tokens=30)))
        asked = ask("p" * 40, temperature=2.0, grammar=rule, max_tokens=60)
        deltas = engine.generate(replace(asked, cache_salt=b"k" * 32, cache_lasts=True))
        beside = asyncio.create_task(collect(engine, ask(max_tokens=30)))
        for _ in range(2):
            await anext(deltas)
        with pytest.raises(GrammarTooComplex) as fault:
            [delta async for delta in deltas]
        assert (fault.value.code, fault.value.http_status) == ("grammar_too_complex", 400)
        assert text(await beside) == alone
        await holds(engine, 0)
        assert remains(engine) > 0
