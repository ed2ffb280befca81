"""A deterministic engine for tests: it says the words it was given, honestly in every other respect."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from confide_enclave.engine import Delta, Engine, GenerationRequest, ModelCard, Thinking, TokenLogprob
from confide_protocol.errors import CapacityExceeded, ContextTooLong

CARD = ModelCard(
    name="scripted",
    weights_digest=bytes(31) + b"\x01",
    tokenizer_digest=bytes(31) + b"\x02",
    context_tokens=4096,
    engine={"kind": "scripted", "mode": "fast"},
)


class ScriptedEngine(Engine):
    """One word a token. `requests` and `cancelled` record what it saw; `fail_at` raises before that word."""

    def __init__(
        self,
        words: Sequence[str] = ("Paris", " is", " the", " capital", "."),
        *,
        step_s: float = 0.0,
        fail_at: int | None = None,
        fault: Exception | None = None,
        capacity: int = 64,
        thinks: Thinking = "no",
        name: str = CARD.name,
        mode: str = "fast",
    ) -> None:
        self.words, self.step_s = list(words), step_s
        self.fail_at, self.fault = fail_at, fault
        self.capacity = capacity
        engine = {**CARD.engine, "mode": mode}
        self._card = replace(CARD, name=name, engine=engine, thinks=thinks)
        self.requests: list[GenerationRequest] = []
        self.running = self.cancelled = 0
        self.started = asyncio.Event()
        self.closed = False

    @property
    def card(self) -> ModelCard:
        return self._card

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        if self.running >= self.capacity:
            raise CapacityExceeded
        text = request.prompt if isinstance(request.prompt, str) else " ".join(m.content for m in request.prompt)
        prompt_tokens = len(text.split())
        if prompt_tokens > CARD.context_tokens:
            raise ContextTooLong
        self.requests.append(request)
        self.running += 1
        self.started.set()
        try:
            limit = min(request.sampling.max_tokens, len(self.words))
            for index, word in enumerate(self.words[:limit]):
                await asyncio.sleep(self.step_s)
                if index == self.fail_at and self.fault is not None:
                    raise self.fault
                last = index == limit - 1
                reason = ("stop" if limit == len(self.words) else "length") if last else None
                yield Delta(word, prompt_tokens, index + 1, reason, self.logprobs(request, word))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def logprobs(self, request: GenerationRequest, word: str) -> tuple[TokenLogprob, ...] | None:
        """Every word is as likely as every other; asked for likely ones, it names itself."""
        count = request.sampling.logprobs
        token = word.encode()
        return None if count is None else (TokenLogprob(token, -0.5, ((token, -0.5),) * min(count, 1)),)

    async def close(self) -> None:
        self.closed = True
