"""How GPUs share out the spans of a step: tiles of query rows, of one span each."""

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from confide_kernels.attention.spans import Spans
from confide_kernels.gpu import block_of

# Rows of a tensor core's smallest product, and of those that fill it.
FEW: Final = 16
MANY: Final = 64
# From so many query rows on, a span's scores are made thrice rather than kept.
_MANY_QUERIES: Final = 17
# Programs that keep every multiprocessor of a large GPU at work.
_ENOUGH: Final = 528


class Tiles(NamedTuple):
    """Tiles of query rows.

    numbers: [tiles, 4] int64, of each its first packed row, rows, how many rows of context the first sees, and
    where those begin; a tile of no rows is padding. size: rows of a product. longest: the most that any row sees.
    """

    numbers: Tensor
    size: int
    longest: int


class Placed(NamedTuple):
    """Spans on a device: made once for all layers of a step. `rows`: [..] int64, the contexts one after another."""

    rows: Tensor
    few: Tiles
    many: Tiles


def place(spans: Spans, group: int, device: torch.device) -> Placed:
    """Cut spans into tiles. `group`: query heads to a key head, which share a tile."""
    numbers = spans.numbers
    many = numbers[:, 1] >= _MANY_QUERIES
    rows = torch.from_numpy(spans.rows)
    if device.type == "cuda":
        rows = rows.pin_memory()
    rows = rows.to(device, non_blocking=True)
    return Placed(rows, _cut(numbers[~many], group, FEW, device), _cut(numbers[many], group, MANY, device))


def _cut(spans: np.ndarray, group: int, size: int, device: torch.device) -> Tiles:
    size = max(size, 1 << (group - 1).bit_length())
    step = size // group
    start, queries, context, where = spans.T
    counts = -(-queries // step)
    own = np.repeat(np.arange(len(spans)), counts)
    first = (np.arange(len(own)) - np.repeat(counts.cumsum() - counts, counts)) * step
    rest = queries[own] - first
    numbers = np.stack([start[own] + first, np.minimum(rest, step), context[own] - rest + 1, where[own]], 1)
    tiles = torch.from_numpy(numbers)
    if device.type == "cuda":
        tiles = tiles.pin_memory()
    return Tiles(tiles.to(device, non_blocking=True), size, int(context.max(initial=0)))


def split_for(longest: int, tiles: int, least: int) -> int:
    """Choose how many rows of context go to a program. No choice can be seen in the result."""
    return max(least, block_of(-(-longest // max(1, _ENOUGH // max(1, tiles)))))
