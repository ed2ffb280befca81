"""Cut a stream anywhere."""

from itertools import pairwise

from hypothesis import strategies as st

CUTS = st.lists(st.integers(0, 100_000), max_size=12)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `stream` at the given places, wherever they fall; pieces may be empty."""
    return [stream[a:b] for a, b in pairwise([0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)])]
