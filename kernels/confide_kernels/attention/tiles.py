"""How GPUs share out the spans of a step: tiles of query rows, of one span each. Importing it imports no Triton."""

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from confide_kernels.attention.spans import Spans
from confide_kernels.jit import I64
from confide_kernels.place import send

# Rows of a tensor core's smallest product, and of those that fill it; programs share a tile where it is too many.
FEW: Final = 16
MANY: Final = 64
# From so many query rows on, a span's scores are made thrice rather than kept.
MANY_QUERIES: Final = 17
# Programs that keep every multiprocessor of a large GPU at work.
_ENOUGH: Final = 528


class Tiles(NamedTuple):
    """Tiles of query rows.

    numbers: [tiles, 5] int64, of each its first packed row, rows, how many rows of context the first sees, where
    those begin, and how many rows the tiles before it have; a tile of no rows is padding. size: rows times heads.
    longest: the most that any row sees. rows: what all tiles have, at most.
    """

    numbers: Tensor
    size: int
    longest: int
    rows: int

    def programs(self, size: int) -> int:
        """Return how many programs have `size` rows of a tile each."""
        return len(self.numbers) * (self.size // size)


class Placed(NamedTuple):
    """Spans on a device: made once for all layers of a step.

    rows: the pages of the contexts one after another, of `page_rows` rows each.
    """

    rows: Tensor
    page_rows: int
    few: Tiles
    many: Tiles


class Fixed:
    """A place for spans in memory that does not move, which a CUDA graph can be captured over once for all steps.

    It holds up to `rows` packed rows, of spans of less than MANY_QUERIES each, a context of up to `longest` rows,
    and `entries` pages in all. What is launched depends on these alone, whatever `placed` holds when it runs.
    """

    def __init__(
        self, rows: int, longest: int, entries: int, page_rows: int, group: int, device: torch.device
    ) -> None:
        self._group = group
        size = _size(FEW, group)
        numbers = torch.zeros(rows, 5, dtype=torch.int64, device=device)
        nothing = Tiles(torch.zeros(0, 5, dtype=torch.int64, device=device), size, 0, 0)
        pages = torch.zeros(entries, dtype=torch.int32, device=device)
        self.placed = Placed(pages, page_rows, Tiles(numbers, size, longest, rows), nothing)

    def update(self, spans: Spans) -> None:
        """Put these spans in the place of others, in stream order; nothing waits. Raises: ValueError."""
        placed, numbers = self.placed, spans.numbers
        count, longest = len(placed.few.numbers), placed.few.longest
        if spans.page_rows != placed.page_rows or spans.rows.size > len(placed.rows):
            raise ValueError(f"the place is for {len(placed.rows)} pages of {placed.page_rows} rows")
        if (numbers[:, 1] >= MANY_QUERIES).any() or (numbers[:, 2] > longest).any():
            raise ValueError(f"the place is for less than {MANY_QUERIES} queries over up to {longest} rows a span")
        if (numbers[:, 0] + numbers[:, 1] > count).any() or numbers[:, 1].sum() > count:
            raise ValueError(f"the place is for {count} packed rows")
        tiles = _cut(numbers, _step(placed.few.size, self._group))
        whole = np.zeros((count, 5), np.int64)
        whole[: len(tiles)] = tiles
        device = placed.rows.device
        send(torch.from_numpy(whole), device, placed.few.numbers)
        pages = torch.from_numpy(np.ascontiguousarray(spans.rows, np.int32))
        send(pages, device, placed.rows[: len(pages)])


def place(spans: Spans, group: int, device: torch.device) -> Placed:
    """Cut spans into tiles. `group`: query heads to a key head, which share a tile."""
    many = spans.numbers[:, 1] >= MANY_QUERIES
    rows = send(torch.from_numpy(np.ascontiguousarray(spans.rows)), device)
    few, rest = (_tiles(spans.numbers[own], group, size, device) for own, size in ((~many, FEW), (many, MANY)))
    return Placed(rows, spans.page_rows, few, rest)


def _tiles(numbers: I64, group: int, size: int, device: torch.device) -> Tiles:
    size = _size(size, group)
    tiles = torch.from_numpy(_cut(numbers, _step(size, group)))
    return Tiles(send(tiles, device), size, int(numbers[:, 2].max(initial=0)), int(numbers[:, 1].sum()))


def _cut(spans: I64, step: int) -> I64:
    """Return tiles of up to `step` packed rows: never more than there are rows."""
    start, queries, context, where = spans.T
    counts = -(-queries // step)
    own = np.repeat(np.arange(len(spans)), counts)
    first = (np.arange(len(own)) - np.repeat(counts.cumsum() - counts, counts)) * step
    rest = queries[own] - first
    rows = np.minimum(rest, step)
    return np.stack([start[own] + first, rows, context[own] - rest + 1, where[own], rows.cumsum() - rows], 1)


def _size(least: int, group: int) -> int:
    return max(least, 1 << (group - 1).bit_length())


def _step(size: int, group: int) -> int:
    return size // group


def split_for(longest: int, tiles: int, least: int) -> int:
    """Choose how many rows of context go to a program. No choice can be seen in the result."""
    split = -(-longest // max(1, _ENOUGH // max(1, tiles)))
    return -(-max(split, 1) // least) * least
