"""Can one tenant tell from the time to its first token what another has asked? Two-sample Kolmogorov-Smirnov tests.

Tenant B asks a prompt that tenant A has just asked, or one that nobody has; `isolation.across_p` is the p-value of
"B's times are the same". `isolation.within_p` is the control that the measurement can tell anything at all: A
asks its own prompt again, or a new one. `isolation.across_ks` and `within_ks` are the largest distances between the
distributions, and `computed` rows count what the engine read of a prompt, which needs no clock.
"""

import asyncio
import math
import random
import string
import tempfile
import time
from collections.abc import Sequence as Values
from contextlib import aclosing
from pathlib import Path

from confide_enclave.engine import GenerationRequest, Sampling
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.torch_engine import TorchEngine

from tests.bench import Row, ours
from tests.fakes import gguf as fake

PROMPT_CHARS = 200
LIMITS = EngineLimits(
    max_sequences=2, context_tokens=fake.CONTEXT, prefill_chunk_tokens=64, threads=1, prefix_tokens=2_048
)
ALICE, BOB = b"a" * 32, b"b" * 32


def rows(quick: bool) -> list[Row]:
    return asyncio.run(measure(60 if quick else 500))


async def measure(arm: int) -> list[Row]:
    """Take `arm` times of each kind, in an order drawn by chance."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.gguf"
        path.write_bytes(fake.toy_llama(5))
        probe = Probe(TorchEngine.load(path, "toy", LIMITS))
        try:
            across = await probe.compare(BOB, arm)
            within = await probe.compare(ALICE, arm)
        finally:
            await probe.engine.close()
    found: list[Row] = []
    for name, (hits, misses, read) in {"across": across, "within": within}.items():
        distance = ks_distance(hits, misses)
        found += [
            ours(f"isolation.{name}_p", ks_p(distance, len(hits), len(misses)), "p"),
            ours(f"isolation.{name}_ks", distance, "distance"),
            ours(f"isolation.{name}_computed", read, "of prompt"),
        ]
    return found


class Probe:
    """Asks prompts of random letters, and takes the time to the first token."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine, self._random, self._read = engine, random.Random(11), 0
        run = engine._runner.run

        def counted(step):
            self._read += sum(count for _, count in step.parts)
            return run(step)

        engine._runner.run = counted

    async def compare(self, salt: bytes, arm: int) -> tuple[list[float], list[float], float]:
        """Return the times after A has asked the same prompt, those after another one, and the share that was read.

        Before each, A asks a prompt: what differs is only whether it is the same.
        """
        order = [True] * arm + [False] * arm
        self._random.shuffle(order)
        times: dict[bool, list[float]] = {True: [], False: []}
        read = 0
        for _ in range(20):
            await self._first_s(self._prompt(), salt)
        for same in order:
            prompt = self._prompt()
            await self._first_s(prompt if same else self._prompt(), ALICE)
            self._read = 0
            times[same].append(await self._first_s(prompt, salt))
            read += same * self._read
        return times[True], times[False], read / arm / PROMPT_CHARS

    async def _first_s(self, prompt: str, salt: bytes) -> float:
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=1, seed=1)
        request = GenerationRequest(prompt, sampling, salt, cache_lasts=True)
        began_s = time.perf_counter()
        async with aclosing(self.engine.generate(request)) as deltas:
            await anext(deltas)
            return time.perf_counter() - began_s

    def _prompt(self) -> str:
        return "".join(self._random.choices(string.ascii_letters + " " * 12, k=PROMPT_CHARS))


def ks_distance(first: Values[float], second: Values[float]) -> float:
    """Return the largest distance between two samples' distribution functions."""
    below, distance = [0, 0], 0.0
    marked = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    for i, (value, which) in enumerate(marked):
        below[which] += 1
        if i + 1 == len(marked) or marked[i + 1][0] != value:
            distance = max(distance, abs(below[0] / len(first) - below[1] / len(second)))
    return distance


def ks_p(distance: float, first: int, second: int) -> float:
    """Return how likely so large a distance is by chance: Kolmogorov's series, with Stephens' correction."""
    root = math.sqrt(first * second / (first + second))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < 0.2:  # where the series converges slowly, and is 1 to many digits
        return 1.0
    return max(0.0, min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))))
