"""Which rows attend to which."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from confide_kernels.jit import I32, I64


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

    numbers: [spans, 4] int64, of each start, queries, context, and where its rows begin in `rows` int64. Or `rows`
    are int32 pages of `page_rows` rows each, a span's are pages from there on, and `parts` are not given.
    """

    parts: Sequence[Span]
    numbers: I64
    rows: I64 | I32
    page_rows: int = 1

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

    @classmethod
    def paged(cls, numbers: I64, pages: I32, page_rows: int) -> "Spans":
        """Make spans of pages, for GPUs alone. pages: any shape; numbers count in it as it lies flat.

        Raises: ValueError where a span has more pages than there are, or fewer rows of context than queries.
        """
        start, queries, context, where = numbers.reshape(-1, 4).T
        if page_rows < 1 or page_rows & (page_rows - 1):
            raise ValueError("a page has a power of two of rows")
        if ((start < 0) | (queries < 1) | (context < queries) | (where < 0)).any():
            raise ValueError("a span has queries, and at least as many rows of context")
        if (where + -(-context // page_rows) > pages.size).any():
            raise ValueError("a span has pages for all of its context")
        return cls((), numbers, pages.reshape(-1), page_rows)
