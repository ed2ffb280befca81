"""Which ids, positions and places a step computes with. Pure Python over integers."""

from dataclasses import dataclass, field
from typing import NamedTuple

from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.scheduler import Step
from confide_enclave.engine.sequence import Sequence


class Part(NamedTuple):
    """A sequence's packed rows, `start` to start + queries, over the first `context` tokens of its pages."""

    start: int
    queries: int
    context: int
    sequence: Sequence


@dataclass(frozen=True)
class Layout:
    """A step's packed rows: their ids, positions, and rows of the pool.

    `wanted`: the packed rows whose logits are wanted. `due`: who is due a token, and of `wanted` the places of the
    row that gives it and of those that its guesses are checked with.
    """

    tokens: list[int] = field(default_factory=list, repr=False)
    positions: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    due: list[tuple[Sequence, range]] = field(default_factory=list)


def lay_out(step: Step) -> Layout:
    """Take from each sequence what the step computes of it, and count that as computed."""
    made = Layout()
    tokens, positions, rows, wanted = made.tokens, made.positions, made.rows, made.wanted
    for sequence, count in step.parts:
        start, end, pages = sequence.computed, sequence.computed + count, sequence.pages
        made.parts.append(Part(len(tokens), count, end, sequence))
        tokens += sequence.pending(count)
        positions += range(start, end)
        rows += (pages[p // PAGE_TOKENS] * PAGE_TOKENS + p % PAGE_TOKENS for p in range(start, end))
        sequence.computed += (read := min(count, sequence.remaining))
        sequence.guesses = sequence.guesses[: count - read]
        if not sequence.remaining:
            made.due.append((sequence, range(len(wanted), len(wanted) + 1 + len(sequence.guesses))))
            wanted += range(len(tokens) - 1 - len(sequence.guesses), len(tokens))
    return made
