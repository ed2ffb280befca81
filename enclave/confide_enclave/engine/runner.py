"""Turns a step into tensors, runs the model, and draws. Owns the cache; called from one thread."""

import torch
from confide_kernels.attention import Span
from torch import Tensor

from confide_enclave.engine import sampler
from confide_enclave.engine.blocks import KvPool, context_rows
from confide_enclave.engine.model import Batch, Decoder
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.scheduler import Step
from confide_enclave.engine.sequence import Sequence


class Runner:
    def __init__(self, model: Decoder, pool: KvPool) -> None:
        self._model, self._pool = model, pool

    @torch.inference_mode()
    def run(self, step: Step) -> list[tuple[Sequence, sampler.Drawn | None]]:
        """Compute the step; return who is due a token, and it, or None where none can be drawn.

        A sequence whose ids this step does not read to their end is due none.
        """
        due: list[Sequence] = []
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
            sequence.computed = end
            if not sequence.remaining:
                due.append(sequence)
                wanted.append(len(tokens) - 1)
        batch = Batch(_ints(tokens), _ints(positions), _rows(rows), spans, _ints(wanted))
        logits = self._model.forward(batch, self._pool)
        return list(zip(due, sampler.draw(logits, due), strict=True))

    def wipe(self, pages: list[int]) -> None:
        """Zero what was left in the pages."""
        self._pool.wipe(pages)


def _ints(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _rows(rows: list[int]) -> slice | Tensor:
    consecutive = rows == list(range(rows[0], rows[0] + len(rows)))
    return slice(rows[0], rows[0] + len(rows)) if consecutive else _ints(rows)
