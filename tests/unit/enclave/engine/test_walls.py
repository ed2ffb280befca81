"""What one tenant's requests leave for another: nothing to find, nothing to read, nothing in the pool."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import torch
from confide_enclave.engine import ChatMessage, GenerationRequest, Sampling
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.torch_engine import TorchEngine
from confide_protocol.errors import CapacityExceeded, ConfigError, EngineError

pytestmark = pytest.mark.anyio
LIMITS = EngineLimits(max_sequences=3, max_waiting=90, context_tokens=128, prefill_chunk_tokens=24, threads=1)
ALICE, BOB = b"a" * 32, b"b" * 32
PROMPT = "The quick brown fox jumps over the lazy dog. " * 2
SYSTEM = "You are a helpful machine that answers in a few words only."


class Watched:
    """An engine, and how many prompt tokens each request had computed: by its length, which the test chooses."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine
        self.computed: dict[int, int] = {}
        run = engine._runner.run

        def counted(step):
            for sequence, count in step.parts:
                if not sequence.generated:
                    length = len(sequence.prompt)
                    self.computed[length] = self.computed.get(length, 0) + count
            return run(step)

        engine._runner.run = counted

    async def ask(self, prompt, salt: bytes = ALICE, *, lasts: bool = True, account: str = "", **sampling) -> str:
        values = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 8, "seed": 1} | sampling
        asked = GenerationRequest(prompt, Sampling(**values), salt, account, cache_lasts=lasts)
        async with aclosing(self.engine.generate(asked)) as deltas:
            return "".join([delta.text async for delta in deltas])

    async def cost(self, prompt, salt: bytes = ALICE, **asked) -> tuple[int, int]:
        """Return how many tokens a prompt has, and how many were computed for it."""
        self.computed.clear()
        await self.ask(prompt, salt, **asked)
        return next(iter(self.computed.items()))

    def remains(self) -> int:
        """Numbers in the pool that are not zero."""
        pool = self.engine._runner._pool
        return int(pool.data.count_nonzero() + pool.tops.count_nonzero())

    async def blank(self) -> None:
        """Wait until the whole pool is zero and every page is free."""
        async with asyncio.timeout(5):
            while self.remains() or len(self.engine._admitted):  # noqa: ASYNC110 - changes on another thread
                await asyncio.sleep(0.001)
        pages = self.engine._prefixes._pages
        assert pages.free == len(pages)


@asynccontextmanager
async def running(toy: Path, **limits) -> AsyncIterator[Watched]:
    engine = TorchEngine.load(toy, "toy", LIMITS.model_copy(update=limits))
    try:
        yield Watched(engine)
    finally:
        await engine.close()


async def test_a_probe_computes_every_token(toy: Path) -> None:
    """B's probe of A's prompt costs B the whole prompt, whatever account it comes from; A's own costs A a page."""
    async with running(toy) as watched:
        tokens, first = await watched.cost(PROMPT, account="one")
        assert first == tokens > 64
        for salt, lasts in ((BOB, False), (bytes(32), False), (BOB, True)):
            assert await watched.cost(PROMPT, salt, lasts=lasts, account="one") == (tokens, tokens)
        assert await watched.cost(PROMPT, account="other") == (tokens, tokens % 16 or 16)
        assert await watched.cost(PROMPT, BOB) == (tokens, tokens % 16 or 16)


async def test_a_tenant_without_a_key_leaves_nothing(toy: Path) -> None:
    """When its requests end the whole pool is zero, and the same salt would find nothing."""
    async with running(toy) as watched:
        await watched.ask(PROMPT, lasts=False)
        await watched.blank()
        tokens, computed = await watched.cost(PROMPT)
        assert computed == tokens


async def test_forgetting(toy: Path) -> None:
    """What is kept is there while the tenant may come back, and zero once it is forgotten, others' left alone."""
    async with running(toy) as watched:
        await watched.ask(PROMPT)
        await watched.ask(PROMPT, BOB)
        assert watched.remains()
        watched.engine.forget(ALICE)
        tokens, computed = await watched.cost(PROMPT, BOB)
        assert computed < tokens
        assert await watched.cost(PROMPT) == (tokens, tokens)
        watched.engine.forget_all()
        await watched.blank()
        assert await watched.cost(PROMPT) == (tokens, tokens)


async def test_idle_tenants_are_forgotten(toy: Path) -> None:
    """Without any request in between, the pool is zero when the time is over."""
    async with running(toy, prefix_idle_s=0.2) as watched:
        await watched.ask(PROMPT)
        assert watched.remains()
        began_s = time.monotonic()
        await watched.blank()
        assert time.monotonic() - began_s > 0.1


async def test_closing_leaves_nothing(toy: Path) -> None:
    """The pool is zero when the engine was closed."""
    async with running(toy) as watched:
        await watched.ask(PROMPT)
        await watched.engine.close()
        assert watched.remains() == 0


async def test_published_prefixes(toy: Path) -> None:
    """A published system message costs nobody anything, not even the first; what follows is each one's own."""
    async with running(toy, context_tokens=256, public_prefixes=(SYSTEM,)) as watched:
        chat = [ChatMessage("system", SYSTEM), ChatMessage("user", PROMPT)]
        tokens, first = await watched.cost(chat)
        assert first <= tokens - 48
        assert await watched.cost(chat, BOB) == (tokens, first)
        assert (await watched.cost(chat, BOB))[1] <= 16
        assert await watched.cost(chat, bytes(32), lasts=False) == (tokens, first)
        other = [ChatMessage("system", "!" + SYSTEM[1:]), ChatMessage("user", PROMPT)]
        assert await watched.cost(other, bytes(32), lasts=False) == (tokens, tokens)
        digests = watched.engine.card.engine["public_prefixes"]
        assert isinstance(digests, str)
        assert len(digests) == 64
    async with running(toy, context_tokens=256) as watched:
        assert (await watched.cost(chat))[1] == tokens
    with pytest.raises(ConfigError, match=r"public_prefixes\.0: must take 16 tokens"):
        TorchEngine.load(toy, "toy", LIMITS.model_copy(update={"public_prefixes": (SYSTEM * 9,)}))


@pytest.mark.parametrize("seed", range(3))
async def test_hits_and_preemption_change_no_answer(toy: Path, seed: int) -> None:
    """A crowd in a pool for hardly two contexts gets what each would have got alone, in a blank engine."""
    rng = Random(seed)
    asked = [
        (
            PROMPT[: rng.choice([20, 40, 60, 89])] + "x" * rng.randrange(3),
            rng.choice([ALICE, BOB]),
            rng.choice("mn"),
            n,
        )
        for n in range(12)
    ]

    async def ask(watched: Watched, prompt: str, salt: bytes, account: str, n: int) -> str:
        return await watched.ask(prompt, salt, account=account, max_tokens=40, temperature=n % 2, seed=n)

    async with running(toy, prefix_tokens=0) as watched:
        alone = [await ask(watched, *each) for each in asked]
    async with running(toy, cache_tokens=208, max_sequences=6) as watched:
        out, send_out = [], watched.engine._scheduler._preempt
        watched.engine._scheduler._preempt = lambda sequence: (out.append(1), send_out(sequence))
        assert await asyncio.gather(*(ask(watched, *each) for each in asked)) == alone
        assert out
        watched.engine.forget_all()
        await watched.blank()


async def test_logits_are_the_same_bits_after_a_hit(toy: Path) -> None:
    """The numbers from which the answer is drawn are equal, hit or miss."""
    async with running(toy) as watched:
        rows: list[torch.Tensor] = []
        forward = watched.engine._runner._model.forward

        def kept(batch, pool):
            rows.append(logits := forward(batch, pool))
            return logits

        watched.engine._runner._model.forward = kept
        taken = []
        for salt in (ALICE, ALICE, BOB):
            rows.clear()
            await watched.ask(PROMPT, salt)
            taken.append(torch.cat([logits for logits in rows if len(logits)]))
        assert torch.equal(taken[0], taken[1])
        assert torch.equal(taken[0], taken[2])


async def test_cancelled_by_the_thousand(toy: Path) -> None:
    """A thousand requests that are left at any time, or run out of it, leak no page and no place."""
    async with running(toy, max_account_requests=64) as watched:
        rng = Random(1)

        async def leave(n: int) -> None:
            try:
                async with asyncio.timeout(rng.random() * 0.02):
                    await watched.ask(
                        PROMPT[: 1 + n % 80], rng.choice([ALICE, BOB]), lasts=n % 2 == 0, max_tokens=99
                    )
            except (TimeoutError, CapacityExceeded):
                pass

        for start in range(0, 1000, 50):
            await asyncio.gather(*(leave(n) for n in range(start, start + 50)))
        watched.engine.forget_all()
        await watched.blank()
        assert len(await watched.ask(PROMPT)) > 0


async def test_accounts_do_not_take_each_others_places(toy: Path) -> None:
    """One account's flood is refused beyond its share while another's request is still let in."""
    async with running(toy, max_account_requests=5) as watched:
        flood = [asyncio.create_task(watched.ask(PROMPT, account="flood", max_tokens=30)) for _ in range(20)]
        await asyncio.sleep(0)
        assert await watched.ask("hello", BOB, account="other")
        results = await asyncio.gather(*flood, return_exceptions=True)
        assert sum(isinstance(result, CapacityExceeded) for result in results) == 15


async def test_numbers_that_are_not_finite_are_not_kept(toy: Path) -> None:
    """What a failed request computed is no prefix of the next one's."""
    async with running(toy) as watched:
        forward, broken = watched.engine._runner._model.forward, [True]
        watched.engine._runner._model.forward = lambda batch, pool: (
            forward(batch, pool) * (torch.nan if broken[0] else 1)
        )
        with pytest.raises(EngineError, match="not finite"):
            await watched.ask(PROMPT)
        await watched.blank()
        broken[0] = False
        tokens, computed = await watched.cost(PROMPT)
        assert computed == tokens


@pytest.mark.parametrize("lasts", [True, False])
async def test_several_answers_read_their_prompt_once(toy: Path, lasts: bool) -> None:
    """Four at once cost one prompt, and the rest of its last page thrice; what they say is what they say alone."""
    async with running(toy, prefix_tokens=0) as watched:
        alone = [await watched.ask(PROMPT, temperature=1.0, seed=seed) for seed in range(4)]
    async with running(toy) as watched:
        several = [watched.ask(PROMPT, lasts=lasts, temperature=1.0, seed=seed) for seed in range(4)]
        assert await asyncio.gather(*several) == alone
        ((tokens, computed),) = watched.computed.items()
        assert computed == tokens + 3 * (tokens - (tokens - 1) // PAGE_TOKENS * PAGE_TOKENS)
