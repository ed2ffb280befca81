"""Who holds which page of the cache. Pure Python over integers."""

from collections.abc import Callable
from typing import Final

PAGE_TOKENS: Final = 16
_FREE, _KEPT, _HELD = 0, 1, 2


class Pages:
    """Gives pages out, one after another where it can, and has them wiped before it takes them back.

    A holder says how many pages it may come to need; that many are kept for it while others can do without.
    """

    def __init__(self, count: int, wipe: Callable[[list[int]], object]) -> None:
        self._state = bytearray(count)
        self._homes: dict[int, range] = {}
        self._wipe = wipe
        self.free: int = count

    def grow(self, held: list[int], count: int, expected: int) -> bool:
        """Extend `held` to `count` pages, of `expected` in the end; False, and no change, when too few are free."""
        if count - len(held) > self.free:
            return False
        if not held:
            start = self._state.find(bytes([_FREE]) * expected)
            home = range(start, start + expected) if start >= 0 else range(0)
            self._mark(home, _FREE, _KEPT)
        else:
            home = self._homes[held[0]]
        while len(held) < count:
            page = home.start + len(held)
            if page not in home or self._state[page] == _HELD:
                page = self._state.find(_FREE)
            if page < 0:
                page = self._state.find(_KEPT)
            self._state[page] = _HELD
            self.free -= 1
            held.append(page)
        self._homes[held[0]] = home
        return True

    def give_back(self, held: list[int]) -> None:
        """Wipe and free all of a holder's pages, and empty the list."""
        if not held:
            return
        self._wipe(held)
        self.free += len(held)
        for page in held:
            self._state[page] = _FREE
        self._mark(self._homes.pop(held[0]), _KEPT, _FREE)
        held.clear()

    def _mark(self, home: range, old: int, new: int) -> None:
        for page in home:
            if self._state[page] == old:
                self._state[page] = new
