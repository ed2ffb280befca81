"""The runner of a GPU. Owns the cache; called from one thread, which prepares the next step while this one runs.

Steps of few rows, as those that only decode, are replayed from graphs: recorded at the start, one for each number
of rows and length of context, both rounded up. What a step leaves unused of a graph's rows is of no sequence and
stored nowhere. All others, which read prompts, are launched one operation at a time. In exact mode it is the same
to the last bit either way, and on a CPU: an auditor can run an answer again without a GPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from confide_kernels import attention
from confide_kernels.attention import Spans
from confide_kernels.attention.tiles import MANY_QUERIES
from torch import Tensor

from confide_enclave.engine import Sampling, sampler
from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.grammar import Matcher
from confide_enclave.engine.lane import Lane
from confide_enclave.engine.layout import Layout, lay_out
from confide_enclave.engine.model import Decoder, States
from confide_enclave.engine.pages import PAGE_TOKENS, pages_for
from confide_enclave.engine.runner import Runner
from confide_enclave.engine.scheduler import Step
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream

# A graph for twice the rows, or four times the context, is the next one.
_LEAST_CONTEXT: Final = 1024
_LONGER: Final = 4
# Rows times context of the largest graph: what goes beyond is launched one by one.
MAX_GRAPH_ROWS: Final = 256
MAX_GRAPH_CONTEXT: Final = 1 << 22
_NOWHERE: Final = -1
# Kernels differ by how many rows they are for: by the tiles that cover them, and where attention goes another way.
WARM_UP: Final = (1, 16, 17, 33)
_TILE_ROWS: Final = 64


class GpuRunner(Runner):
    overlaps = True

    def __init__(self, model: Decoder, pool: KvPool, lane: Lane) -> None:
        super().__init__(model, pool)
        self._lane = lane
        self._group = model.config.heads // model.config.kv_heads
        self._graphs: list[_Graph] = []
        self._tables: WeakKeyDictionary[Sequence, _Table] = WeakKeyDictionary()

    @torch.inference_mode()
    def record(self, rows: int, context_tokens: int) -> None:
        """Record graphs for steps of up to so many rows over contexts of up to so many tokens."""
        shapes = graph_shapes(rows, context_tokens)
        # The largest first: the others find room in its memory.
        for shape in sorted(shapes, key=lambda shape: shape.rows * shape.context, reverse=True):
            self._graphs.append(_Graph(shape, self._model, self._pool, self._lane))
        self._graphs.sort(key=lambda graph: graph.shape)

    def warm_up(self, prompt_tokens: int, drawn: int) -> None:
        """Compile what steps launch, before anybody waits for it. Uses the first pages.

        Steps are of up to so many tokens of prompts, and so many rows that are drawn from.
        """
        asked = Sampling(temperature=1.0, top_p=0.5, max_tokens=1, seed=0, top_k=2, presence_penalty=1.0)
        used = list(range(min(pages_for(prompt_tokens + 1), self._pool.data.shape[2] // PAGE_TOKENS)))

        def read(count: int) -> tuple[Sequence, int]:
            return Sequence([0] * count, asked, 1, TextStream(()), deliver=id, pages=used), count

        # What else a step reads beside a prompt is of one token each; all write the same rows, for nobody.
        longest = min(prompt_tokens, len(used) * PAGE_TOKENS)
        for count in warm_up_counts(longest + drawn):
            next(self.run(Step((*(read(1) for _ in range(count - longest)), read(min(count, longest))))))
        for count in warm_up_counts(drawn):
            next(self.run(Step(tuple(read(1) for _ in range(count)))))
        self.wipe(used)

    @torch.inference_mode()
    def run(self, step: Step) -> Iterator[tuple[Sequence, sampler.Drawn | None]]:
        """As on a CPU, but that the step is under way when this returns, and only what is yielded waits for it.

        Where a request wants no grammar, whose state knows no guesses, rows that check guesses are drawn from along
        with the others: each with the randomness of its own position, as if the guesses before it were right. When
        they are not, nobody looks at it.
        """
        made = lay_out(step)
        states = self._compute(made)
        if not made.due:
            return self._read(made, states.residual, [], self._lane.fetch(torch.empty(0, dtype=torch.int64)))
        logits = self._model.logits(states, self._lane.send(_ints(made.wanted)))
        rows: list[sampler.Row] = []
        places: list[int] = []
        for sequence, own in made.due:
            ahead = [
                _Guessed(sequence.prompt, sequence.generated + sequence.guesses[:count], sequence.sampling)
                for count in range(1, len(own))
                if sequence.grammar is None
            ]
            rows += [sequence, *ahead]
            places += own[: 1 + len(ahead)]
        return self._read(made, logits, places, self._choose(logits, places, rows))

    @torch.inference_mode()
    def erase(self) -> None:
        """Overwrite whatever steps left, but for the pages: between steps that is of no use to anybody."""
        for graph in self._graphs:
            graph.erase()
        self._lane.erase()

    def close(self) -> None:
        self._graphs.clear()
        del self._model, self._pool
        self._lane.release()

    def survives(self) -> bool:
        return self._lane.survives()

    def _compute(self, made: Layout) -> States:
        """Begin to run the layers, from a graph if one fits."""
        longest, most = max(part.context for part in made.parts), max(part.queries for part in made.parts)
        numbers, pages, entries = [], [], 0
        for part in made.parts:
            numbers.append((*part[:3], entries))
            pages.append(own := self._table(part.sequence)[: pages_for(part.context)])
            entries += len(own)
        spans = Spans.paged(np.array(numbers, np.int64), np.concatenate(pages), PAGE_TOKENS)
        inputs = _ints([made.tokens, made.positions, made.rows])
        if most < MANY_QUERIES:
            for graph in self._graphs:
                if graph.shape.rows >= len(made.tokens) and graph.shape.context >= longest:
                    return graph.run(inputs, spans)
        placed = attention.place(spans, self._group, self._lane.device)
        tokens, positions, rows = self._lane.send(inputs)
        return self._model.states(tokens, positions, rows, placed, self._pool)

    def _table(self, sequence: Sequence) -> npt.NDArray[np.int32]:
        """Return a sequence's pages; made anew only when it has others. A list of them only grows."""
        known, pages = self._tables.get(sequence), sequence.pages
        if known is None or known.source is not pages or len(known.pages) != len(pages):
            known = self._tables[sequence] = _Table(pages, np.array(pages, np.int32))
        return known.pages

    def _choose(self, logits: Tensor, places: list[int], rows: list[sampler.Row]) -> Callable[[], list[int]]:
        if len(places) < len(logits):
            logits = logits.index_select(0, self._lane.send(_ints(places)))
        return self._lane.fetch(sampler.choose(logits, rows, self._lane.send))

    def _read(
        self, made: Layout, logits: Tensor, places: list[int], chosen: Callable[[], list[int]]
    ) -> Iterator[tuple[Sequence, sampler.Drawn | None]]:
        known = dict(zip(places, chosen(), strict=True))
        due = made.due
        while due:
            # Not while it yields: entering and leaving for each costs more than all else here.
            with torch.inference_mode():
                if left := [(who, own[0]) for who, own in due if own[0] not in known]:
                    missing = [place for _, place in left]
                    known |= zip(missing, self._choose(logits, missing, [who for who, _ in left])(), strict=True)
                drawn = [_explain(logits, own[0], known[own[0]], who) for who, own in due]
            yield from zip((who for who, _ in due), drawn, strict=True)
            took = zip(due, drawn, strict=True)
            due = [(who, own[1:]) for (who, own), token in took if own[1:] and token and not who.remaining]


def _explain(logits: Tensor, place: int, token: int, row: sampler.Row) -> sampler.Drawn | None:
    if token < 0:
        return None
    return sampler.Drawn(token) if row.sampling.logprobs is None else sampler.explain(logits[place], token, row)


def warm_up_counts(most: int) -> list[int]:
    """Return numbers of rows up to `most`, one for each set of kernels that a step of as many may launch."""
    tiles = range(_TILE_ROWS, most, _TILE_ROWS)
    return sorted({count for count in (*WARM_UP, *tiles) if count < most} | {most})


class GraphShape(NamedTuple):
    """Up to how many packed rows, over contexts of up to how many tokens."""

    rows: int
    context: int


def graph_shapes(rows: int, context_tokens: int) -> list[GraphShape]:
    """Return what is recorded: at most nine numbers of rows, and five lengths of context."""
    counts = [1]
    while counts[-1] < min(rows, MAX_GRAPH_ROWS):
        counts.append(2 * counts[-1])
    contexts = [_LEAST_CONTEXT]
    while contexts[-1] < context_tokens:
        contexts.append(_LONGER * contexts[-1])
    whole = pages_for(context_tokens) * PAGE_TOKENS
    shapes = [GraphShape(count, min(context, whole)) for count in counts for context in contexts]
    return [shape for shape in shapes if shape.rows * shape.context <= MAX_GRAPH_CONTEXT]


class _Graph:
    """The layers for one shape, on memory that stays."""

    def __init__(self, shape: GraphShape, model: Decoder, pool: KvPool, lane: Lane) -> None:
        self.shape, self._lane = shape, lane
        group = model.config.heads // model.config.kv_heads
        entries = shape.rows * pages_for(shape.context)
        self._spans = attention.Fixed(*shape, entries, PAGE_TOKENS, group, lane.device)
        self._unused = torch.tensor([[0], [0], [_NOWHERE]]).repeat(1, shape.rows)
        self._inputs = self._unused.to(lane.device, copy=True)
        tokens, positions, rows = self._inputs
        self._replay, self._states = lane.record(
            lambda: model.states(tokens, positions, rows, self._spans.placed, pool)
        )

    def run(self, inputs: Tensor, spans: Spans) -> States:
        """inputs: tokens, positions and rows, [3, n] int64. The result stays until the next run."""
        filled = self._unused.clone()
        filled[:, : inputs.shape[1]] = inputs
        self._lane.send(filled, self._inputs)
        self._spans.update(spans)
        self._replay()
        return self._states

    def erase(self) -> None:
        self._inputs.copy_(self._unused)
        residual, added = self._states
        for left in (residual, *(added or ())):
            left.zero_()


class _Table(NamedTuple):
    source: list[int]
    pages: npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Guessed:
    """A row as it is if what was guessed before it is right."""

    prompt: list[int] = field(repr=False)
    generated: list[int] = field(repr=False)
    sampling: Sampling
    grammar: Matcher | None = None


def _ints(values: list[int] | list[list[int]]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
