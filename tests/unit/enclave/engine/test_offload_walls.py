"""Answers through pages that were sealed and came back: the same to the last bit, or else computed again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import torch
from confide_enclave.engine.offload_memory import HostMemory
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_protocol.errors import EngineError
from structlog.testing import capture_logs

from tests.unit.enclave.engine.test_walls import ALICE, BOB, PROMPT, Watched, running

pytestmark = pytest.mark.anyio
# A pool for one context, and a prompt that needs all of it.
FLOOD = "qzxj" * 29
TIGHT = {"cache_tokens": 128, "max_sequences": 1, "offload_tokens": 640, "tenant_offload_tokens": 320}


class Sealing(Watched):
    """A watched engine that keeps what it gives up in the host's memory."""

    @property
    def memory(self) -> HostMemory:
        offload = self.engine._prefixes.offload
        assert offload is not None
        assert isinstance(offload._memory, HostMemory)
        return offload._memory

    @property
    def counts(self) -> tuple[int, int]:
        """Pages that were opened, and refused."""
        offload = self.engine._prefixes.offload
        assert offload is not None
        return offload.opened, offload.refused

    async def flood(self) -> None:
        """Have all that the pool keeps given up."""
        assert (await self.cost(FLOOD, bytes(32), lasts=False))[0] >= 7 * PAGE_TOKENS

    def sealed(self) -> int:
        """Slots of the host's memory that hold something."""
        return int(self.memory._data.any(1).sum())

    async def blank(self) -> None:
        """Wait until the host's memory is zero, too."""
        async with asyncio.timeout(5):
            while self.sealed():  # noqa: ASYNC110 - changes on another thread
                await asyncio.sleep(0.001)
        await super().blank()


@asynccontextmanager
async def sealing(toy: Path, **limits) -> AsyncIterator[Sealing]:
    async with running(toy, **TIGHT | limits) as watched:
        yield Sealing(watched.engine)


async def test_the_same_bits(toy: Path) -> None:
    """Logits after pages came back are those of a blank engine; only the end of the prompt was computed again."""
    rows: list[torch.Tensor] = []

    def keep(watched: Watched) -> None:
        forward = watched.engine._runner._model.forward
        watched.engine._runner._model.forward = lambda *given: rows.append(forward(*given)) or rows[-1]

    async with running(toy, prefix_tokens=0) as watched:
        keep(watched)
        await watched.ask(PROMPT)
        expected = torch.cat([logits for logits in rows if len(logits)])
    async with sealing(toy) as watched:
        tokens, _ = await watched.cost(PROMPT)
        await watched.flood()
        keep(watched)
        rows.clear()
        assert await watched.cost(PROMPT) == (tokens, tokens % PAGE_TOKENS or PAGE_TOKENS)
        assert torch.equal(torch.cat([logits for logits in rows if len(logits)]), expected)
        assert watched.counts == ((tokens - 1) // PAGE_TOKENS, 0)


async def test_fast_mode_keeps_its_floats(toy: Path) -> None:
    """An answer of fast mode, alone, is the same text after its pages came back."""
    fast = {"mode": "fast", "scheme": "none", "dtype": "float32"}
    async with sealing(toy, **fast) as watched:
        first = await watched.ask(PROMPT, max_tokens=30)
        await watched.flood()
        assert await watched.ask(PROMPT, max_tokens=30) == first
        assert watched.counts == (5, 0)


async def test_off_unless_asked_for(toy: Path) -> None:
    """By default what the cache gives up is gone."""
    async with running(toy, cache_tokens=128, max_sequences=1) as watched:
        tokens, _ = await watched.cost(PROMPT)
        await Sealing(watched.engine).flood()
        assert await watched.cost(PROMPT) == (tokens, tokens)
        assert watched.engine._prefixes.offload is None


async def test_no_tenant_finds_anothers(toy: Path) -> None:
    """What was sealed for A costs B, and whoever has no key, the whole prompt, from whatever account."""
    async with sealing(toy) as watched:
        tokens, _ = await watched.cost(PROMPT)
        await watched.flood()
        for salt, lasts in ((BOB, False), (bytes(32), False), (BOB, True)):
            assert await watched.cost(PROMPT, salt, lasts=lasts, account="another") == (tokens, tokens)
        assert watched.counts == (0, 0)
        assert (await watched.cost(PROMPT))[1] <= PAGE_TOKENS
        assert watched.counts == (5, 0)


async def test_nothing_of_the_pool_is_in_the_hosts_memory(toy: Path) -> None:
    """No row of keys or values that was ever computed is found there, in any layer."""
    async with sealing(toy) as watched:
        await watched.ask(PROMPT)
        pool = watched.engine._runner.pool
        rows = {bytes(row) for row in pool.data.flatten(0, 2).flatten(1).numpy() if row.any()}
        assert len(rows) > 100
        assert min(map(len, rows)) >= 16
        await watched.ask(PROMPT, BOB)
        await watched.flood()
        assert watched.sealed() == 10
        held = watched.memory._data.numpy().tobytes()
        assert not any(row in held for row in rows)


async def test_a_spoilt_page_is_computed_again(toy: Path) -> None:
    """Whatever is changed in the host's memory, the answer is the same; it is counted, and logged by its kind."""
    async with sealing(toy) as watched:
        tokens, _ = await watched.cost(PROMPT)
        answer = await watched.ask(PROMPT)
        await watched.flood()
        watched.memory._data[:, 3] ^= 1
        with capture_logs() as logs:
            assert await watched.cost(PROMPT) == (tokens, tokens)
            await watched.flood()
            watched.memory._data[:, 4] ^= 1
            assert await watched.ask(PROMPT) == answer
        assert watched.counts == (0, 2)
        assert {tuple(sorted(entry)) for entry in logs} == {("count", "event", "kind", "log_level")}
        assert {entry["kind"] for entry in logs} == {"bad_tag"}


async def test_forgetting(toy: Path) -> None:
    """A tenant that is forgotten leaves nothing sealed; nor does anybody when all are."""
    async with sealing(toy) as watched:
        tokens, _ = await watched.cost(PROMPT)
        await watched.ask(PROMPT, BOB)
        await watched.flood()
        assert watched.sealed() == 10
        watched.engine.forget(ALICE)
        assert (await watched.cost(PROMPT, BOB))[1] <= PAGE_TOKENS
        assert watched.sealed() == 5
        assert await watched.cost(PROMPT) == (tokens, tokens)
        watched.engine.forget_all()
        await watched.blank()


async def test_idle_tenants_are_forgotten(toy: Path) -> None:
    """Without any request in between the host's memory is zero when the time is over."""
    async with sealing(toy, prefix_idle_s=0.3) as watched:
        await watched.ask(PROMPT)
        await watched.flood()
        assert watched.sealed() == 5
        await watched.blank()


async def test_closing_leaves_nothing(toy: Path) -> None:
    """The host's memory is zero when the engine was closed."""
    async with sealing(toy) as watched:
        await watched.ask(PROMPT)
        await watched.flood()
        assert watched.sealed() == 5
        memory = watched.memory
        await watched.engine.close()
        assert not memory._data.any()


async def test_a_lost_device_leaves_no_key(toy: Path) -> None:
    """When pages can no more be wiped, amid an answer, the engine ends, and what was sealed is nobody's."""
    async with sealing(toy) as watched:
        await watched.ask(PROMPT)
        await watched.flood()
        assert watched.sealed() == 5
        keys = [tenant.vault.key for tenant in watched.engine._prefixes._tenants.values()]
        assert any(keys[0])

        def lost(_: list[int]) -> None:
            raise RuntimeError

        watched.engine._runner.wipe = lost
        with capture_logs() as logs:
            async with asyncio.timeout(5):
                with pytest.raises(EngineError):
                    await asyncio.gather(*(watched.ask(PROMPT, BOB, max_tokens=40) for _ in range(3)))
            await watched.engine.close()
        assert [entry["event"] for entry in logs] == ["engine_ended"] * 2
        assert keys == [bytes(32)]
        assert not watched.sealed()


async def test_numbers_that_are_not_finite_are_not_kept(toy: Path) -> None:
    """What a tenant had sealed goes with what it just computed."""
    async with sealing(toy) as watched:
        tokens, _ = await watched.cost(PROMPT)
        await watched.flood()
        forward, broken = watched.engine._runner._model.forward, [True]
        watched.engine._runner._model.forward = lambda batch, pool: (
            forward(batch, pool) * (torch.nan if broken[0] else 1)
        )
        with pytest.raises(EngineError, match="not finite"):
            await watched.ask(PROMPT)
        broken[0] = False
        assert await watched.cost(PROMPT) == (tokens, tokens)


@pytest.mark.parametrize("seed", range(3))
async def test_a_crowd(toy: Path, seed: int) -> None:
    """Through a pool for hardly two contexts everybody gets what it would have got alone, in a blank engine."""
    rng = Random(seed)
    asked = [
        (PROMPT[: rng.choice([40, 60, 89])] + "x" * rng.randrange(2), rng.choice([ALICE, BOB]), rng.choice("mn"), n)
        for n in range(16)
    ]

    async def ask(watched: Watched, prompt: str, salt: bytes, account: str, n: int) -> str:
        return await watched.ask(prompt, salt, account=account, max_tokens=30, temperature=n % 2, seed=n)

    async with running(toy, prefix_tokens=0) as watched:
        alone = [await ask(watched, *each) for each in asked]
    async with sealing(toy, cache_tokens=208, max_sequences=6) as watched:
        assert await asyncio.gather(*(ask(watched, *each) for each in asked)) == alone
        assert watched.counts[0] > 0
        watched.engine.forget_all()
        await watched.blank()
