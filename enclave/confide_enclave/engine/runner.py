"""Turns a step into tensors, runs the model, and draws. Owns the cache; called from one thread."""

from collections.abc import Iterator

import torch
from confide_kernels.attention import Span
from torch import Tensor

from confide_enclave.engine import sampler
from confide_enclave.engine.blocks import KvPool, context_rows
from confide_enclave.engine.draft import Draft
from confide_enclave.engine.layout import lay_out
from confide_enclave.engine.model import Batch, Decoder
from confide_enclave.engine.scheduler import Step
from confide_enclave.engine.sequence import Sequence


class Runner:
    """`overlaps`: whether a step is under way from `run` on, rather than from the first token that is asked for."""

    overlaps = False

    def __init__(self, model: Decoder, pool: KvPool, draft: Draft | None = None) -> None:
        self._model, self._pool, self.draft = model, pool, draft

    @property
    def pool(self) -> KvPool:
        return self._pool

    @torch.inference_mode()
    def run(self, step: Step) -> Iterator[tuple[Sequence, sampler.Drawn | None]]:
        """Compute the step; yield who is due a token, and it, or None where none can be drawn.

        A sequence whose ids this step does not read to their end is due none. One that takes the token before the
        next is asked for, and had guessed it, is due another.
        """
        made = lay_out(step)
        spans = [Span(*part[:3], context_rows(part.sequence.pages, part.context)) for part in made.parts]
        batch = Batch(_ints(made.tokens), _ints(made.positions), _ints(made.rows), spans, _ints(made.wanted))
        logits = self._model.forward(batch, self._pool)
        due = made.due
        while due:
            drawn = sampler.draw(logits[[own[0] for _, own in due]], [sequence for sequence, _ in due])
            yield from zip((sequence for sequence, _ in due), drawn, strict=True)
            took = zip(due, drawn, strict=True)
            due = [(who, own[1:]) for (who, own), token in took if own[1:] and token and not who.remaining]

    def wipe(self, pages: list[int]) -> None:
        """Zero what was left in the pages."""
        self._pool.wipe(pages)

    def erase(self) -> None:
        """Overwrite what steps left in memory of ours. What a CPU's leave is the C library's, which does."""

    def close(self) -> None:
        """Give a device back what is held of it; no step follows. What a CPU's holds goes with the engine."""

    def survives(self) -> bool:
        """Say whether another step can be run after one that failed."""
        return True


def _ints(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
