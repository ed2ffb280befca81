"""Pages are given to one holder, shared to be read, and wiped before they are free again."""

import pytest
from confide_enclave.engine.pages import Pages, pages_for
from confide_protocol.errors import LocalStateError


def test_pages_for() -> None:
    """A page that is begun counts."""
    assert [pages_for(tokens) for tokens in (0, 1, 16, 17)] == [0, 1, 1, 2]


def test_neighbours() -> None:
    """Whoever grows gets the next page as long as nobody has it; a new one leaves the one before it room."""
    pages = Pages(16, lambda _: None)
    first = pages.take(2)
    second = pages.take(2)
    assert (first, second) == ([0, 1], [9, 10])
    for _ in range(3):
        first += pages.take(1, after=first[-1])
        second += pages.take(1, after=second[-1])
    assert (first, second) == ([0, 1, 2, 3, 4], [9, 10, 11, 12, 13])
    assert pages.take(3, after=13) == [14, 15, 7]
    assert sorted(pages.take(3)) == [5, 6, 8]
    with pytest.raises(LocalStateError):
        pages.take(1)


def test_wiped_before_it_is_free() -> None:
    """A page is wiped once, when its last holder lets go; the others stay as they are."""
    wiped: list[int] = []
    pages = Pages(4, lambda freed: wiped.extend((page, pages.free) for page in freed))
    held = pages.take(3)
    pages.share(held[:1])
    pages.release(held[:2])
    assert wiped == [(1, 1)]
    assert pages.free == 2
    pages.release(held[:1])
    pages.release(held[2:])
    assert [page for page, _ in wiped] == [1, 0, 2]
    assert pages.take(4) == [0, 1, 2, 3]


def test_what_cannot_be_wiped_is_given_to_nobody() -> None:
    """If wiping fails, the page is lost, not handed on."""

    def fail(_: list[int]) -> None:
        raise RuntimeError

    pages = Pages(2, fail)
    held = pages.take(1)
    with pytest.raises(RuntimeError):
        pages.release(held)
    assert pages.free == 1
    assert pages.take(1) != held


def test_idle() -> None:
    """A page that the cache alone holds is idle, and free once the cache lets go."""
    wiped: list[int] = []
    pages = Pages(2, wiped.extend)
    held = pages.take(1)
    pages.cache(held[0])
    assert pages.idle == 0
    pages.release(held)
    assert (pages.idle, pages.available, pages.free) == (1, 2, 1)
    pages.share(held)
    assert pages.idle == 0
    pages.release(held)
    pages.uncache(held)
    assert (pages.idle, pages.free, wiped) == (0, 2, held)


def test_misuse() -> None:
    """Nobody shares or gives back what is not held."""
    pages = Pages(2, lambda _: None)
    for act in (pages.share, pages.release):
        with pytest.raises(LocalStateError):
            act([1])
