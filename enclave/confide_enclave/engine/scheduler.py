"""Who computes what in the next step. Pure Python over integers; knows no tensors and no text."""

from collections import deque
from dataclasses import dataclass

from confide_enclave.engine.pages import PAGE_TOKENS, Pages
from confide_enclave.engine.sequence import Sequence


@dataclass(frozen=True)
class Step:
    """How many tokens of whom. Whoever computes a single one stands first."""

    parts: tuple[tuple[Sequence, int], ...]

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        return tuple(sequence for sequence, _ in self.parts)


class Scheduler:
    """Continuous batching: sequences join and leave between steps.

    Each step decodes every sequence that can and reads prompts, eldest first, within a budget of tokens, so a long
    prompt delays nobody by more than that. Pages are given as they are needed. When they run out, the youngest
    gives its own back and starts again later, from its prompt and what it has generated; so the eldest always
    gets on, and everybody becomes the eldest.
    """

    def __init__(self, pages: Pages, max_sequences: int, budget_tokens: int) -> None:
        self._pages, self._max_sequences, self._budget_tokens = pages, max_sequences, budget_tokens
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def sequences(self) -> list[Sequence]:
        return [*self._running, *self._waiting]

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def next_step(self) -> Step | None:
        """Let in whoever waits longest and fits, and return the work of one step; None when there is none."""
        while self._waiting and len(self._running) < self._max_sequences and self._fits(self._waiting[0]):
            self._running.append(self._waiting.popleft())
        decoding = (sequence for sequence in self._running if sequence.remaining == 1)
        parts = sorted(((each, 1 + len(each.guesses)) for each in decoding), key=lambda part: part[1])
        budget = self._budget_tokens
        for sequence in self._running:
            if sequence.remaining > 1 and budget:
                count = min(budget, sequence.remaining)
                parts.append((sequence, count))
                budget -= count
        given = [part for part in parts if self._give_pages(*part)]
        # Whoever lost its pages to an elder after it was given some is out again.
        step = Step(tuple((sequence, count) for sequence, count in given if sequence.pages))
        return step if step.parts else None

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence of ours, and take its pages back."""
        self._pages.give_back(sequence.pages)
        (self._running if sequence in self._running else self._waiting).remove(sequence)

    def _fits(self, sequence: Sequence) -> bool:
        return not self._running or _pages_for(len(sequence.prompt) + len(sequence.generated)) <= self._pages.free

    def _give_pages(self, sequence: Sequence, count: int) -> bool:
        """Grow the sequence's pages for `count` more tokens, at the cost of younger ones if need be."""
        if sequence not in self._running:
            return False
        needed = _pages_for(sequence.computed + count)
        expected = _pages_for(len(sequence.prompt) + sequence.token_limit)
        while not self._pages.grow(sequence.pages, needed, expected):
            youngest = self._running[-1]
            if youngest is sequence:
                return False
            self._preempt(youngest)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._pages.give_back(sequence.pages)
        sequence.computed = 0
        self._waiting.appendleft(sequence)


def _pages_for(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS)
