"""Who computes what in the next step. Pure Python over integers; knows no tensors and no text."""

import heapq
from collections import deque
from dataclasses import dataclass

from confide_enclave.engine.sequence import Sequence


@dataclass(frozen=True)
class Step:
    """At most `chunk` prompt tokens of `prefill`, and one token each of `decoding`, whose blocks ascend."""

    prefill: Sequence | None
    chunk: int
    decoding: tuple[Sequence, ...]

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        return (*((self.prefill,) if self.prefill else ()), *self.decoding)


class Scheduler:
    """Continuous batching: sequences join and leave between steps.

    Each step decodes every sequence that can and adds one bounded chunk of the eldest unread prompt, so a long
    prompt delays nobody by more than a chunk. Blocks are given lowest first, which keeps the batch dense.
    """

    def __init__(self, blocks: int, chunk_tokens: int) -> None:
        self._free = list(range(blocks))
        self._chunk_tokens = chunk_tokens
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def sequences(self) -> list[Sequence]:
        return [*self._running, *self._waiting]

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def next_step(self) -> Step | None:
        """Give free blocks to whoever waits longest and return the work of one step; None when there is none."""
        while self._waiting and self._free:
            sequence = self._waiting.popleft()
            sequence.block = heapq.heappop(self._free)
            self._running.append(sequence)
        prefill = next((sequence for sequence in self._running if not sequence.decoding), None)
        chunk = min(self._chunk_tokens, len(prefill.prompt) - prefill.computed) if prefill else 0
        decoding = tuple(sorted((s for s in self._running if s.decoding), key=lambda sequence: sequence.block))
        return Step(prefill, chunk, decoding) if self._running else None

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence of ours. Its block, which must be zero by now, is free again."""
        if sequence.block < 0:
            self._waiting.remove(sequence)
            return
        self._running.remove(sequence)
        heapq.heappush(self._free, sequence.block)
        sequence.block = -1
