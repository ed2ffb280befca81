"""Runs of checks, by their order in a list of ids."""

from enum import StrEnum
from typing import TypeVar

C = TypeVar("C", bound=StrEnum)


def span(first: C, last: C) -> tuple[C, ...]:
    """Return the checks from `first` to `last`, both included, in the order of their list."""
    order = tuple(type(first))
    return order[order.index(first) : order.index(last) + 1]
