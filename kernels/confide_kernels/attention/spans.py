"""Which rows attend to which."""

from typing import NamedTuple

from torch import Tensor


class Span(NamedTuple):
    """One sequence's part of a step: packed rows start to start + queries, over the pool's rows of its context.

    `rows` is a slice where the pages follow one another, else [context] int64. Row start + i sees the first
    context - queries + i + 1 of them.
    """

    start: int
    queries: int
    context: int
    rows: slice | Tensor
