"""Several answers to one prompt: own seeds, one budget, one stream; the best of them where that is asked."""

import asyncio
import hashlib
import math
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from confide_protocol.errors import EngineError

from confide_enclave.api.answer import MEDIA_EVENTS, Answer, Record, plain
from confide_enclave.api.frames import Frame, Usage
from confide_enclave.api.reading import invalid
from confide_enclave.api.speech import Calls, Said, Splitter
from confide_enclave.engine import Delta, Engine, GenerationRequest, Thinking

MAX_REQUEST_TOKENS: Final = 1 << 16
_LABEL_CHOICE: Final = b"confide.choice.v1"


@dataclass(frozen=True)
class Plan:
    """What is asked of the engine, and how the model's text is to be read."""

    request: GenerationRequest
    thinks: Thinking = "no"
    calls: Calls = "never"
    logprobs: bool = False
    call_id: str = field(default="", repr=False)


def choice_seed(seed: int, index: int) -> int:
    """Return a candidate's seed: the request's for the first, then 64 bits of SHA-256(label, seed, index)."""
    if index == 0:
        return seed
    packed = struct.pack("<QQ", seed % 2**64, index)
    return int.from_bytes(hashlib.sha256(_LABEL_CHOICE + packed).digest()[:8], "little")


def share_tokens(asked: int | None, candidates: int, default: int) -> int:
    """Return how long each candidate may get: the budget is shared evenly, whatever the others use.

    Raises: Refusal when more is asked for.
    """
    most = MAX_REQUEST_TOKENS // candidates
    if asked is None:
        return min(default, most)
    if asked > most and candidates > 1:
        raise invalid("n", f"all answers together may have {MAX_REQUEST_TOKENS} tokens")
    return asked


async def run(engine: Engine, plan: Plan, frame: Frame, *, stream: bool, flush_tokens: int) -> Answer:
    """Ask the engine for every candidate; return once the status is certain. Raises: EngineError."""
    sampling = plan.request.sampling
    record = Record(sampling=sampling)
    candidates = [Said(index, Splitter(plan.thinks, plan.calls)) for index in range(sampling.candidates)]
    deltas = _merge([engine.generate(_candidate(plan.request, index)) for index in range(sampling.candidates)])
    if stream:
        batches = _stream(deltas, candidates, frame, record, plan.call_id, flush_tokens)
        return Answer(200, MEDIA_EVENTS, await anext(batches), batches, record)
    async with aclosing(deltas):
        async for index, delta in deltas:
            candidates[index].take(delta)
    choices = _best(candidates, sampling.choices)
    for said in choices:
        said.advance(_call_id(plan.call_id, said))
        if not plan.logprobs:
            said.logprobs = None
    _count(record, candidates)
    record.messages = [said.message for said in choices]
    return plain(200, frame.whole(choices, Usage.of(candidates)), record)


def _candidate(request: GenerationRequest, index: int) -> GenerationRequest:
    sampling = request.sampling
    if sampling.candidates > sampling.choices and sampling.logprobs is None:
        sampling = replace(sampling, logprobs=0)
    return replace(request, sampling=replace(sampling, seed=choice_seed(sampling.seed, index)))


def _best(candidates: Sequence[Said], count: int) -> list[Said]:
    """Return the `count` that are likeliest by the token, best first; of equal ones the earlier."""
    if count == len(candidates):
        return list(candidates)

    def score(said: Said) -> float:
        values = [each.logprob for each in said.logprobs or ()]
        return math.fsum(values) / len(values) if values else -math.inf

    best = sorted(candidates, key=lambda said: (-score(said), said.index))[:count]
    return [replace(said, index=index) for index, said in enumerate(best)]


async def _merge(streams: Sequence[AsyncGenerator[Delta, None]]) -> AsyncGenerator[tuple[int, Delta], None]:
    """Yield what comes from any of them until each has given its last delta. Raises: EngineError."""
    waiting: dict[asyncio.Task[Delta], int] = {}
    try:
        waiting = {asyncio.ensure_future(_next(stream)): index for index, stream in enumerate(streams)}
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(task)
                delta = task.result()
                if delta.finish_reason is None:
                    waiting[asyncio.ensure_future(_next(streams[index]))] = index
                yield index, delta
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


async def _next(stream: AsyncGenerator[Delta, None]) -> Delta:
    delta = await anext(stream, None)
    if delta is None:
        raise EngineError
    return delta


async def _stream(
    deltas: AsyncGenerator[tuple[int, Delta], None],
    choices: list[Said],
    frame: Frame,
    record: Record,
    call_id: str,
    flush_tokens: int,
) -> AsyncGenerator[tuple[bytes, ...], None]:
    """Yield one batch for every `flush_tokens` tokens, empty if they made no text yet, and one at the end."""
    flushed_tokens, opening = 0, frame.opening()
    async with aclosing(deltas):
        async for index, delta in deltas:
            choices[index].take(delta)
            _count(record, choices)
            done = all(said.finish for said in choices)
            if not done and record.completion_tokens - flushed_tokens < flush_tokens:
                continue
            flushed_tokens = record.completion_tokens
            batch, opening = opening, []
            for said in choices:
                if not said.ended:
                    pieces, logprobs = said.advance(_call_id(call_id, said))
                    news = frame.news(said, pieces, logprobs)
                    said.begun, said.ended = said.begun or bool(news), said.finish is not None
                    batch += news
            record.messages = frame.messages(choices, done=done)
            if done:
                batch += frame.closing(choices, Usage.of(choices))
            yield tuple(batch)


def _call_id(prefix: str, said: Said) -> str:
    return f"{prefix}{said.index:02x}"


def _count(record: Record, candidates: Sequence[Said]) -> None:
    usage = Usage.of(candidates)
    record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
