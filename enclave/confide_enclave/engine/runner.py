"""Turns a step into tensors, runs the model, and draws. Owns the cache; called from one thread."""

import torch
from torch import Tensor

from confide_enclave.engine import sampler
from confide_enclave.engine.blocks import KvCache
from confide_enclave.engine.model import Batch, Llama
from confide_enclave.engine.scheduler import Step
from confide_enclave.engine.sequence import Sequence


class Runner:
    def __init__(self, model: Llama, cache: KvCache) -> None:
        self._model, self._cache = model, cache

    @torch.inference_mode()
    def run(self, step: Step) -> list[tuple[Sequence, int | None]]:
        """Compute the step; return who is due a token, and it, or None if the logits are not finite.

        A sequence whose prompt this step does not read to its end is due none.
        """
        due: list[Sequence] = []
        tokens: list[int] = []
        positions: list[int] = []
        blocks: list[int] = []
        wanted: list[int] = []
        for sequence in step.sequences:
            ids = sequence.pending(step.chunk if sequence is step.prefill else 1)
            end = sequence.computed + len(ids)
            self._cache.reserve(sequence.block, end)
            tokens += ids
            positions += range(sequence.computed, end)
            blocks += [sequence.block] * len(ids)
            sequence.computed = end
            if sequence.decoding:
                due.append(sequence)
                wanted.append(len(tokens) - 1)
        batch = Batch(_ints(tokens), _ints(positions), _ints(blocks), step.chunk, _ints(wanted))
        logits = self._model.forward(batch, self._cache)
        return list(zip(due, sampler.draw(logits, due), strict=True))

    def wipe(self, sequence: Sequence) -> None:
        """Zero what the sequence left in the cache."""
        self._cache.wipe(sequence.block)


def _ints(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
