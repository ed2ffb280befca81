"""Turns a step into tensors, runs the model, and draws. Owns the cache; called from one thread."""

from collections.abc import Iterator

import torch
from confide_kernels.attention import Span
from torch import Tensor

from confide_enclave.engine import sampler
from confide_enclave.engine.blocks import KvPool, context_rows
from confide_enclave.engine.draft import Draft
from confide_enclave.engine.model import Batch, Decoder
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.scheduler import Step
from confide_enclave.engine.sequence import Sequence


class Runner:
    def __init__(self, model: Decoder, pool: KvPool, draft: Draft | None = None) -> None:
        self._model, self._pool, self.draft = model, pool, draft

    @torch.inference_mode()
    def run(self, step: Step) -> Iterator[tuple[Sequence, sampler.Drawn | None]]:
        """Compute the step; yield who is due a token, and it, or None where none can be drawn.

        A sequence whose ids this step does not read to their end is due none. One that takes the token before the
        next is asked for, and had guessed it, is due another.
        """
        due: list[tuple[Sequence, range]] = []
        tokens: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        spans: list[Span] = []
        wanted: list[int] = []
        for sequence, count in step.parts:
            start, end = sequence.computed, sequence.computed + count
            spans.append(Span(len(tokens), count, end, context_rows(sequence.pages, end)))
            tokens += sequence.pending(count)
            positions += range(start, end)
            rows += (sequence.pages[p // PAGE_TOKENS] * PAGE_TOKENS + p % PAGE_TOKENS for p in range(start, end))
            sequence.computed += (read := min(count, sequence.remaining))
            sequence.guesses = sequence.guesses[: count - read]
            if not sequence.remaining:
                due.append((sequence, range(len(wanted), len(wanted) + 1 + len(sequence.guesses))))
                wanted += range(len(tokens) - 1 - len(sequence.guesses), len(tokens))
        batch = Batch(_ints(tokens), _ints(positions), _ints(rows), spans, _ints(wanted))
        logits = self._model.forward(batch, self._pool)
        while due:
            drawn = sampler.draw(logits[[own[0] for _, own in due]], [sequence for sequence, _ in due])
            yield from zip((sequence for sequence, _ in due), drawn, strict=True)
            took = zip(due, drawn, strict=True)
            due = [(who, own[1:]) for (who, own), token in took if own[1:] and token and not who.remaining]

    def wipe(self, pages: list[int]) -> None:
        """Zero what was left in the pages."""
        self._pool.wipe(pages)


def _ints(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
