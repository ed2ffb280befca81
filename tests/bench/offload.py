"""What sealing brings: a prompt of 1,000 tokens that the pool gave up, opened again or computed again, in turns.

`offload.first_token` is the time to the first token with pages that come back sealed, against computing them;
`offload.sealing` is what giving a page up costs the step in which it goes.
"""

import asyncio
import secrets
import time
from contextlib import aclosing

from confide_enclave.engine import GenerationRequest, Sampling
from confide_enclave.engine.card import EngineLimits, default_weights
from confide_enclave.engine.offload import Offload
from confide_enclave.engine.torch_engine import TorchEngine

from tests.bench import Row, ours, versus
from tests.bench.speculation import CODE, TEXT

CONTEXT = 1_296
# The pool holds one context: what comes between has all of the first prompt's pages given up.
LIMITS = EngineLimits(max_sequences=1, context_tokens=CONTEXT, speculate="off", offload_tokens=4_096)
PROMPT = "\n".join([TEXT, CODE] * 4)
BETWEEN = "\n".join([CODE, TEXT] * 5)


def rows(quick: bool) -> list[Row]:
    return asyncio.run(_measure(rounds=1 if quick else 5))


async def _measure(rounds: int) -> list[Row]:
    engine = TorchEngine.load(default_weights(), "model", LIMITS)
    try:
        sealing = Sealing(engine)
        opened, computed = [], []
        for _ in range(rounds):
            salt = secrets.token_bytes(32)
            first, first_s = await _first(engine, PROMPT, salt, lasts=True)
            await _first(engine, BETWEEN, secrets.token_bytes(32), lasts=False)
            again, again_s = await _first(engine, PROMPT, salt, lasts=True)
            if first != again:
                raise AssertionError("pages that came back changed an answer")
            computed.append(first_s)
            opened.append(again_s)
            engine.forget_all()
        if sealing.offload.opened < rounds * 50:
            raise AssertionError("too few pages came back")
    finally:
        await engine.close()
    return [
        versus("offload.first_token", min(opened) * 1e3, "ms", "computing it again", min(computed) * 1e3),
        ours("offload.sealing", sealing.seconds / sealing.pages * 1e6, "us a page"),
    ]


class Sealing:
    """How long an engine takes to seal, and how many pages."""

    def __init__(self, engine: TorchEngine) -> None:
        offload = engine._prefixes.offload
        assert isinstance(offload, Offload)
        self.offload, self.seconds, self.pages = offload, 0.0, 0
        seal = offload._seal

        def timed(vault, fresh) -> None:
            began_s = time.perf_counter()
            seal(vault, fresh)
            self.seconds += time.perf_counter() - began_s
            self.pages += len(fresh)

        offload._seal = timed


async def _first(engine: TorchEngine, prompt: str, salt: bytes, *, lasts: bool) -> tuple[str, float]:
    """Return the first tokens of an answer, and when the first of them came."""
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=4, seed=0)
    request = GenerationRequest(prompt, sampling, salt, cache_lasts=lasts)
    text, seconds, began_s = "", 0.0, time.perf_counter()
    async with aclosing(engine.generate(request)) as deltas:
        async for delta in deltas:
            seconds = seconds or time.perf_counter() - began_s
            text += delta.text
    return text, seconds
