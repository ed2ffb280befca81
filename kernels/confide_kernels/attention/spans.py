"""Which rows attend to which."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from confide_kernels.jit import I64


class Span(NamedTuple):
    """One sequence's part of a step: packed rows start to start + queries, over the pool's rows of its context.

    `rows` is a slice where the pages follow one another, else [context] int64. Row start + i sees the first
    context - queries + i + 1 of them.
    """

    start: int
    queries: int
    context: int
    rows: slice | Tensor


class Spans(NamedTuple):
    """The spans of a step: as they are, and as arrays.

    numbers: [spans, 4] int64, of each start, queries, context, and where its rows begin in `rows` int64.
    """

    parts: Sequence[Span]
    numbers: I64
    rows: I64

    @classmethod
    def of(cls, parts: Sequence[Span]) -> "Spans":
        numbers = np.array([(*part[:3], 0) for part in parts], np.int64).reshape(-1, 4)
        numbers[1:, 3] = numbers[:-1, 2].cumsum()
        rows = [
            np.arange(part.rows.start, part.rows.stop) if isinstance(part.rows, slice) else part.rows.cpu().numpy()
            for part in parts
        ]
        if any(len(of) != part.context for of, part in zip(rows, parts, strict=True)):
            raise ValueError("a span has as many rows as its context")
        return cls(parts, numbers, np.concatenate(rows) if rows else np.empty(0, np.int64))
