"""What an engine's script does when it is told to: a line of JSON on standard input each, and one in answer.

Import it first: from then on what else is printed goes nowhere. A script calls `serve` with what it can do.
"""

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

# What libraries write to the descriptor itself must not reach the answers either.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

Prompt = Mapping[str, object]


def serve(cache_bytes: int, **can: Callable[..., object]) -> None:
    """Say that it is ready and how much of its memory is cache by now; then answer until there is no more input."""
    _say({"cache_bytes": cache_bytes})
    for line in sys.stdin:
        task = json.loads(line)
        _say(can[task.pop("do")](**task))


def one_by_one(stream: Callable[[Prompt, int], Iterator[object]]) -> Callable[..., list[list[float]]]:
    """Generate for one prompt after another; return the times of each one's tokens since the start."""

    def generate(prompts: list[Prompt], tokens: int, at_s: list[float]) -> list[list[float]]:
        began, times = time.perf_counter(), []
        for prompt, due_s in zip(prompts, at_s, strict=True):
            time.sleep(max(0, due_s - (time.perf_counter() - began)))
            times.append([time.perf_counter() - began for _ in stream(prompt, tokens)])
        return times

    return generate


async def together(
    stream: Callable[[Prompt, int], AsyncIterator[object]], prompts: list[Prompt], tokens: int, at_s: list[float]
) -> list[list[float]]:
    """Generate for all as they come; return as `one_by_one`."""
    began = time.perf_counter()

    async def one(prompt: Prompt, due_s: float) -> list[float]:
        await asyncio.sleep(max(0, due_s - (time.perf_counter() - began)))
        return [time.perf_counter() - began async for _ in stream(prompt, tokens)]

    return list(await asyncio.gather(*map(one, prompts, at_s)))


def perplexity(logprobs: list[float]) -> float:
    return math.exp(-sum(logprobs) / len(logprobs))


def _say(answer: object) -> None:
    print(json.dumps(answer), file=_answers, flush=True)
