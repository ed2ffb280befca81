"""The engine with the runner of a GPU: answers, what is left behind, and faults of the device."""

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from confide_enclave.engine import gpu, torch_engine
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.lane import Lane
from confide_enclave.engine.torch_engine import TorchEngine
from confide_enclave.errors import DeviceUnavailable
from confide_kernels import place
from confide_protocol.errors import CapacityExceeded, ConfigError, EngineError

from tests.fakes import asking
from tests.fakes.asking import collect
from tests.fakes.lane import HostLane

# The interpreter's arithmetic is numpy's, which warns of numbers that are not finite.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]
LIMITS = EngineLimits(
    max_sequences=3, context_tokens=128, prefill_chunk_tokens=24, threads=1, device="cuda", prefix_tokens=0
)


@asynccontextmanager
async def running(toy: Path, **limits) -> AsyncIterator[TorchEngine]:
    engine = await asyncio.to_thread(TorchEngine.load, toy, "toy", LIMITS.model_copy(update=limits))
    try:
        yield engine
    finally:
        await engine.close()


# The interpreter takes seconds for a token.
ask = partial(asking.ask, max_tokens=2)


async def idle(engine: TorchEngine) -> None:
    async with asyncio.timeout(30):
        while len(engine._admitted) or engine._left_since_s < float("inf"):  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)


async def test_answers_are_those_of_a_cpu(toy: Path, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone on a CPU or in a crowd on a GPU: the same deltas. Afterwards every row of the cache is zero."""
    asked = [
        ask("abc" * 9, temperature=0.8, logprobs=1),
        ask("abcabcabcabc", max_tokens=5),
        ask("xyz", temperature=1.1, top_p=0.8, top_k=9, repetition_penalty=1.2),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(place, "INTERPRETED", False)
        async with running(toy, device="cpu", speculate="off") as engine:
            alone = [await collect(engine, each) for each in asked]
    async with running(toy) as engine:
        assert await asyncio.gather(*(collect(engine, each) for each in asked)) == alone
        await idle(engine)
        assert not engine._runner.pool.data.any()
        assert not engine._runner.pool.tops.any()
        if isinstance(lane, HostLane):
            assert lane.erased


@pytest.mark.parametrize("offloaded", [0, 1024])
async def test_what_a_closed_engine_held_goes_back_to_the_gpu(toy: Path, lane: Lane, offloaded: int) -> None:
    """Though the engine is still known to somebody: a server beside it may need the room."""
    async with running(toy, offload_tokens=offloaded) as engine:
        await collect(engine, ask())
        held = [weakref.ref(each) for each in (engine._runner.pool.data, engine._runner._model)]
        if isinstance(lane, HostLane):
            assert not lane.released
    assert [each() for each in held] == [None, None]
    if isinstance(lane, HostLane):
        assert lane.released


async def test_memory_that_runs_out_ends_a_step_alone(toy: Path, lane: Lane) -> None:
    """Whoever took part gets an error that has a name; the engine goes on, and gives what it gave."""
    async with running(toy) as engine:
        before = await collect(engine, ask())
        run = engine._runner._compute

        def full(made: object) -> None:
            engine._runner._compute = run
            raise torch.OutOfMemoryError("CUDA out of memory")

        engine._runner._compute = full
        with pytest.raises(CapacityExceeded):
            await collect(engine, ask())
        assert await collect(engine, ask()) == before
        assert not engine.lost
        await idle(engine)
        assert not engine._runner.pool.data.any()


async def test_a_lost_gpu_ends_the_engine(toy: Path, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told, nobody else is served, and it shows that only a new process helps."""
    async with running(toy) as engine:

        def fail(made: object) -> None:
            monkeypatch.setattr(engine._runner, "survives", lambda: False)
            raise RuntimeError("CUDA error: device-side assert triggered")

        monkeypatch.setattr(engine._runner, "_compute", fail)
        with pytest.raises(EngineError):
            await collect(engine, ask())
        await asyncio.to_thread(engine._thread.join, 10)
        assert engine.lost
        with pytest.raises(EngineError, match="closed"):
            await collect(engine, ask())


async def test_a_fault_that_the_gpu_gets_over(toy: Path, lane: Lane) -> None:
    """A step that fails otherwise ends its own sequences."""
    async with running(toy) as engine:
        draw = engine._runner._choose

        def fail(*arguments: object) -> None:
            engine._runner._choose = draw
            raise RuntimeError

        engine._runner._choose = fail
        with pytest.raises(EngineError, match="the engine failed"):
            await collect(engine, ask())
        assert len(await collect(engine, ask())) == 2
        assert not engine.lost


async def test_a_wrong_kernel_is_not_served_with(toy: Path, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one, is said."""
    monkeypatch.setattr(gpu.selftest, "check", lambda device: ["gemm.linear_w8a8: 3 of 40 differ"])
    with pytest.raises(DeviceUnavailable, match=r"nothing is served: gemm\.linear_w8a8"):
        await asyncio.to_thread(TorchEngine.load, toy, "toy", LIMITS)


@pytest.mark.parametrize(("most", "said"), [("MAX_VOCABULARY", "draws from 1 "), ("MAX_HEAD_DIM", "heads of 1 ")])
async def test_a_model_beyond_what_kernels_take(
    toy: Path, lane: Lane, monkeypatch: pytest.MonkeyPatch, most: str, said: str
) -> None:
    """Refused with the remedy."""
    monkeypatch.setattr(gpu, most, 1)
    with pytest.raises(ConfigError, match=rf'engine: device: .*{said}.*set device = "cpu"'):
        await asyncio.to_thread(TorchEngine.load, toy, "toy", LIMITS)


async def test_a_gpu_that_is_too_small(toy: Path, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found before anything is loaded; and if the count was wrong, when memory runs out, in the same words."""
    monkeypatch.setattr(lane, "memory", lambda: (1 << 29, 1 << 30))
    with pytest.raises(ConfigError, match=r"engine: cache_tokens: asks for more than the GPU has: .*0\.5 of 1\.0"):
        await asyncio.to_thread(TorchEngine.load, toy, "toy", LIMITS)
    monkeypatch.setattr(lane, "memory", lambda: (1 << 40, 1 << 40))

    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(lane, "record", full)
    with pytest.raises(ConfigError, match="lower cache_tokens"):
        await asyncio.to_thread(TorchEngine.load, toy, "toy", LIMITS)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
async def test_who_waits_is_told_while_the_next_step_is_computed(
    toy: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """On a GPU; on a CPU, where nothing computes meanwhile, before. In order either way, and the last at once."""
    if device == "cuda":
        request.getfixturevalue("lane")
    told: list[str] = []
    async with running(toy, device=device, speculate="off") as engine:
        run, deliver, say = engine._runner.run, engine._deliver, engine._say
        monkeypatch.setattr(engine._runner, "run", lambda step: told.append("step") or run(step))
        monkeypatch.setattr(engine, "_deliver", lambda *item: told.append("drawn") or deliver(*item))

        def telling() -> None:
            told.extend("told" for _ in engine._unsaid)
            say()

        monkeypatch.setattr(engine, "_say", telling)
        deltas = await collect(engine, ask(max_tokens=3))
        assert [delta.completion_tokens for delta in deltas] == [1, 2, 3]
        await idle(engine)
    first, later = ["step", "drawn"], ["step", "told", "drawn"]
    assert told == (first + later + later + ["told"] if device == "cuda" else [*first, "told"] * 3)


async def test_a_gpu_without_a_pause_is_erased_all_the_same(
    toy: Path, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many seconds between two steps, and whenever nothing is left to do."""
    erased: list[int] = []
    async with running(toy) as engine:
        monkeypatch.setattr(engine._runner, "erase", lambda: erased.append(len(engine._scheduler.sequences)))
        await collect(engine, ask(max_tokens=3))
        await idle(engine)
        assert erased == [0]
        monkeypatch.setattr(torch_engine, "ERASE_S", 0.0)
        await collect(engine, ask(max_tokens=3))
        await idle(engine)
        assert erased == [0, 1, 1, 0]


async def test_the_interpreter_serves_nobody(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets some products wrong, silently: an environment that asks for it is refused."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ConfigError, match="TRITON_INTERPRET: is for tests"):
        await asyncio.to_thread(TorchEngine.load, toy, "toy", LIMITS.model_copy(update={"device": "cpu"}))
