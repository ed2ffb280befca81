"""The engine of our own: torch in one thread, many requests at once, text on each caller's event loop."""

import asyncio
import math
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import structlog
import torch
from confide_protocol.errors import CapacityExceeded, ConfigError, EngineError

from confide_enclave.engine import Delta, Engine, GenerationRequest, ModelCard, Sampling
from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.card import EngineLimits, choose_dtype, make_card, open_weights
from confide_enclave.engine.draft import DraftProposer, load_draft
from confide_enclave.engine.fairness import Admission
from confide_enclave.engine.grammar import Grammars, Matcher
from confide_enclave.engine.model import Decoder
from confide_enclave.engine.offload_memory import open_offload
from confide_enclave.engine.package import Model
from confide_enclave.engine.pages import PAGE_TOKENS, Pages, pages_for
from confide_enclave.engine.prefix import PrefixCache
from confide_enclave.engine.public import public_ids
from confide_enclave.engine.runner import Runner
from confide_enclave.engine.sampler import Drawn
from confide_enclave.engine.scheduler import Bounds, Scheduler, Step
from confide_enclave.engine.sequence import Sequence, token_limit
from confide_enclave.engine.speculate import MAX_ROWS, Guesser, InTurn, PromptLookup
from confide_enclave.engine.tokens import TextStream, Tokens
from confide_enclave.engine.weights import load_weights
from confide_enclave.errors import DeviceLost, GrammarTooComplex, UnknownToken

log = structlog.get_logger(__name__)

# How long, without a pause, a GPU's memory may keep what earlier steps left in it.
ERASE_S: Final = 10.0


class TorchEngine(Engine):
    """Owns the model thread, which alone touches sequences once they are submitted; others only set `cancelled`.

    Exact mode: a request gives the same text each time. Fast mode: it does alone; beside others, rounding may
    differ.
    """

    def __init__(
        self, card: ModelCard, tokens: Tokens, limits: EngineLimits, build: Callable[[int], Runner]
    ) -> None:
        """`build` makes a runner with so many pages, on the model thread; `loaded` is set when that is done, with
        whatever it raised. Raises: ConfigError.
        """
        self._card, self._tokens, self._limits, self._build = card, tokens, limits, build
        self._grammars = Grammars(tokens)
        self._public = public_ids(tokens, limits.public_prefixes, limits.context_tokens)
        self._page_count = limits.pages + sum(pages_for(len(ids)) for ids in self._public)
        pages = Pages(self._page_count, lambda held: self._runner.wipe(held))
        kept = limits.tenant_prefix_tokens // PAGE_TOKENS, limits.prefix_tokens // PAGE_TOKENS
        self._prefixes = PrefixCache(pages, *kept)
        bounds = Bounds(limits.max_sequences, limits.prefill_chunk_tokens, limits.account_pages)
        self._scheduler = Scheduler(pages, self._prefixes, bounds)
        self._changed = threading.Condition()
        # Guarded by _changed.
        self._admitted = Admission(limits.max_account_requests, limits.max_sequences + limits.max_waiting)
        self._arrivals: deque[Sequence] = deque()
        self._forgotten: list[bytes] = []
        self._forget_all = False
        self._closed = False
        # The model thread's.
        self._unsaid: list[tuple[Sequence, Delta | EngineError]] = []
        self._left_since_s = math.inf
        self.loaded: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, name="confide-engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls, weights: Path, name: str, limits: EngineLimits, expected_sha256: str | None = None
    ) -> "TorchEngine":
        """Open, check and if need be convert the weights, and start serving. Raises: ConfigError.

        weights: a GGUF file or a converted package; takes seconds for a GGUF file that never was converted.
        """
        model = open_weights(weights, limits, expected_sha256)
        card = make_card(model, name, limits)
        engine = cls(card, Tokens(model.metadata), limits, lambda pages: _build_runner(model, limits, pages))
        engine.loaded.result()
        return engine

    @property
    def card(self) -> ModelCard:
        return self._card

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Yield one delta per token, its text maybe empty; the answer ends early where the context does."""
        self._admit(request.account)
        try:
            # Long prompts take a while, and the tokenizer lets go of the GIL.
            prompt, grammar = await asyncio.to_thread(self._prepare, request)
            limit = token_limit(prompt, request.sampling, self._card.context_tokens)
            # One delta per token and one error at most: this queue cannot overflow.
            inbox: asyncio.Queue[Delta | EngineError] = asyncio.Queue(limit + 1)
            loop = asyncio.get_running_loop()
            sequence = Sequence(
                prompt,
                request.sampling,
                limit,
                TextStream(request.sampling.stop),
                deliver=lambda item: loop.call_soon_threadsafe(inbox.put_nowait, item),
                grammar=grammar,
                guesser=self._guesser() if request.speculate else None,
                account=request.account,
                salt=request.cache_salt,
                lasting=request.cache_lasts,
            )
            self._submit(sequence)
        except BaseException:
            self._release(request.account)
            raise
        try:
            while True:
                item = await inbox.get()
                if isinstance(item, EngineError):
                    raise item
                yield item
                if item.finish_reason:
                    return
        finally:
            with self._changed:
                sequence.cancelled = True
                self._changed.notify()

    async def close(self) -> None:
        """Stop within one step; whoever still waits gets EngineError."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def forget(self, salt: bytes) -> None:
        """Zero what the cache keeps for a tenant, and its salt, within one step."""
        with self._changed:
            self._forgotten.append(salt)
            self._changed.notify()

    def forget_all(self) -> None:
        """Do so for every tenant."""
        with self._changed:
            self._forget_all = True
            self._changed.notify()

    def _prepare(self, request: GenerationRequest) -> tuple[list[int], Matcher | None]:
        sampling = request.sampling
        if any(token >= self._tokens.size for token, _ in sampling.logit_bias):
            raise UnknownToken
        prompt = self._tokens.encode(request.prompt, request.tools, request.thinking)
        return prompt, self._grammars.start(sampling.grammar) if sampling.grammar else None

    def _guesser(self) -> Guesser | None:
        if self._limits.speculate == "off":
            return None
        draft = self._runner.draft
        proposers = [PromptLookup(), *([DraftProposer(draft)] if draft else [])]
        return Guesser(InTurn(*proposers), self._limits.guesses)

    def _admit(self, account: str) -> None:
        with self._changed:
            if self._closed:
                raise EngineError("the engine is closed")
            self._admitted.enter(account)

    def _release(self, account: str) -> None:
        with self._changed:
            self._admitted.leave(account)

    def _submit(self, sequence: Sequence) -> None:
        with self._changed:
            if self._closed:
                raise EngineError("the engine is closed")
            self._arrivals.append(sequence)
            self._changed.notify()

    # --- From here on: the model thread.

    def _serve(self) -> None:
        # All torch work stays on this thread: a second OpenMP pool beside it would halve the speed of both.
        torch.set_num_threads(self._limits.threads or max(1, torch.get_num_threads() - 1))
        try:
            self._runner = self._build(self._page_count)
            self._prefixes.offload = open_offload(self._runner.pool, self._limits, secrets.token_bytes)
            del self._build  # and with it the model's metadata
            self._publish()
        except BaseException as fault:  # noqa: BLE001 - handed to whoever waits for loaded
            self.loaded.set_exception(fault)
            return
        self.loaded.set_result(None)
        for work in (self._run, self._drain):
            try:
                work()
            except Exception as fault:  # noqa: BLE001 - outside a step nothing may fail: say so and serve no more
                log.error("engine_ended", kind=type(fault).__name__)  # noqa: TRY400
                self.lost = True

    def _publish(self) -> None:
        """Read what the operator published, before anybody is served."""
        for ids in self._public:
            sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=1, seed=0)
            sequence = Sequence(ids, sampling, 1, TextStream(()), deliver=lambda _: None)
            self._scheduler.add(sequence)
            while step := sequence.remaining and self._scheduler.next_step():
                next(self._runner.run(step), None)  # nobody takes the token
            self._prefixes.publish(ids, sequence.pages)
            self._scheduler.remove(sequence)

    def _run(self) -> None:
        while self._gather():
            self._step()

    def _drain(self) -> None:
        with self._changed:
            self._closed = True
        self._collect()
        for sequence in self._scheduler.sequences:
            self._deliver(sequence, EngineError("the engine is closed"))
        self._say()
        try:
            for sequence in self._scheduler.sequences:
                self._retire(sequence)
        finally:  # a device that is lost cannot wipe, and keeps no key from being erased
            self._prefixes.forget_all()
            self._runner.erase()
        self._prefixes.offload = None  # it looks into the runner's pool
        self._runner.close()

    def _gather(self) -> bool:
        """Wait for work, let new sequences join and cancelled ones leave; False when the engine closes.

        Nor does it wait beyond the time when a tenant's pages are due to be forgotten.
        """
        now_s = time.monotonic()
        due_s = self._prefixes.tick(now_s, self._limits.prefix_idle_s)
        if not self._scheduler.sequences:
            self._say()
        if self._left_since_s + (ERASE_S if self._scheduler.sequences else 0) <= now_s:
            self._runner.erase()
            self._left_since_s = math.inf
        with self._changed:
            self._changed.wait_for(self._has_work, due_s)
        self._forget()
        self._collect()
        for sequence in self._scheduler.sequences:
            if sequence.cancelled:
                self._retire(sequence)
        return not self._closed

    def _has_work(self) -> bool:
        asked = self._arrivals or self._forgotten or self._forget_all
        return bool(self._closed or asked or self._scheduler.sequences)

    def _forget(self) -> None:
        with self._changed:
            salts, everybody = self._forgotten, self._forget_all
            self._forgotten, self._forget_all = [], False
        for salt in salts:
            self._prefixes.forget(salt)
        if everybody:
            self._prefixes.forget_all()

    def _collect(self) -> None:
        with self._changed:
            while self._arrivals:
                self._scheduler.add(self._arrivals.popleft())

    def _step(self) -> None:
        due = sum(sequence.remaining == 1 for sequence in self._scheduler.sequences)
        most = MAX_ROWS // due - 1 if due else 0
        if most > 0:
            for sequence in self._scheduler.sequences:
                self._guess(sequence, most)
        step = self._scheduler.next_step()
        if step is None:
            self._say()
            return
        self._left_since_s = min(self._left_since_s, time.monotonic())
        for sequence, drawn in self._draws(step):
            try:
                delta = sequence.append(drawn, self._tokens) if drawn else None
            except EngineError as fault:
                self._retire(sequence, fault)
                continue
            if delta is None:
                self._retire(sequence, self._blame(sequence))
                continue
            if delta.finish_reason:
                self._scheduler.store(sequence)
                self._retire(sequence, delta)
            else:
                self._deliver(sequence, delta)
        for sequence in step.sequences:
            self._scheduler.store(sequence)
        if not self._runner.overlaps:
            self._say()

    def _blame(self, sequence: Sequence) -> EngineError:
        """Say why no token could be drawn."""
        if sequence.grammar is not None and sequence.grammar.broken:
            return GrammarTooComplex()
        self._prefixes.forget(sequence.salt)
        return EngineError("the model's numbers are not finite")

    def _guess(self, sequence: Sequence, most: int) -> None:
        try:
            sequence.guess(most)
        except Exception as fault:  # noqa: BLE001 - without guesses the answer is the same
            log.error("guess_failed", kind=type(fault).__name__)  # noqa: TRY400
            self._stop_guessing(sequence)

    @staticmethod
    def _stop_guessing(sequence: Sequence) -> None:
        if sequence.guesser is not None:
            sequence.guesser.close()
            sequence.guesser = None

    def _draws(self, step: Step) -> Iterator[tuple[Sequence, Drawn | None]]:
        try:
            draws = self._runner.run(step)
            self._say()  # while a GPU computes
            yield from draws
        except Exception as fault:  # noqa: BLE001 - whatever a step raises ends its own sequences and no others
            # The exception's text may show what it computed on; its kind does not.
            log.error("engine_step_failed", kind=type(fault).__name__)  # noqa: TRY400
            if not self._runner.survives():
                raise DeviceLost from None
            full = isinstance(fault, torch.OutOfMemoryError)
            error = (
                CapacityExceeded("the GPU has no memory for this; ask for less at once") if full else EngineError()
            )
            for sequence in step.sequences:
                if sequence in self._scheduler.sequences:
                    self._retire(sequence, error)

    def _retire(self, sequence: Sequence, last: Delta | EngineError | None = None) -> None:
        """Zero and free what the sequence held, then deliver the last word."""
        self._scheduler.remove(sequence)
        self._stop_guessing(sequence)
        self._release(sequence.account)
        if last is not None:
            self._deliver(sequence, last)

    def _deliver(self, sequence: Sequence, item: Delta | EngineError) -> None:
        self._unsaid.append((sequence, item))

    def _say(self) -> None:
        """Hand over what there is to deliver."""
        unsaid, self._unsaid = self._unsaid, []
        for sequence, item in unsaid:
            try:
                sequence.deliver(item)
            except RuntimeError:  # the caller's event loop is closed
                sequence.cancelled = True


def _build_runner(model: Model, limits: EngineLimits, pages: int) -> Runner:
    """Build of the model's arrays, which leave it."""
    if "TRITON_INTERPRET" in os.environ:
        raise ConfigError("the environment", "TRITON_INTERPRET", "is for tests alone; remove it")
    if limits.is_on_gpu:
        from confide_enclave.engine import gpu

        return gpu.build_runner(model, limits, pages)
    weights = load_weights(model, getattr(torch, choose_dtype(limits)), take=True)
    draft = load_draft(model, weights, limits, pages)
    return Runner(Decoder(weights, limits.context_tokens), KvPool.of(weights, pages), draft)
