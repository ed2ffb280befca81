"""Which pages of the pool are free, and how many hold each of the others. Pure Python over integers."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from typing import Final

from confide_protocol.errors import LocalStateError

PAGE_TOKENS: Final = 16


def pages_for(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS)


class Pages:
    """Free pages, as runs of neighbours; of all others, how many hold them, and whether the cache is one of these.

    A page is free again only when `wipe` has returned for it; if `wipe` raises, it stays nobody's for ever.
    Pages of one sequence are neighbours where possible, so that its context is one stretch of memory: a new one
    starts amid the longest run, which leaves it and the one before it the same room to grow.
    """

    def __init__(self, count: int, wipe: Callable[[list[int]], object]) -> None:
        self._wipe = wipe
        self._holders = [0] * count
        self._cached = bytearray(count)
        self._starts, self._ends = ([0], [count]) if count else ([], [])
        self.free = count
        self.idle = 0

    def __len__(self) -> int:
        return len(self._holders)

    @property
    def available(self) -> int:
        """How many pages are free, or held by the cache alone."""
        return self.free + self.idle

    def is_idle(self, page: int) -> bool:
        return bool(self._cached[page]) and self._holders[page] == 1

    def take(self, count: int, after: int = -1) -> list[int]:
        """Hold `count` free pages, the neighbours of page `after` if those are free.

        Raises: LocalStateError when fewer are free.
        """
        if count > self.free:
            raise LocalStateError("more pages were asked for than are free")
        taken: list[int] = []
        run = bisect_left(self._starts, after + 1)
        if after >= 0 and run < len(self._starts) and self._starts[run] == after + 1:
            taken += self._carve(run, after + 1, count)
        while len(taken) < count:
            rest = count - len(taken)
            run = max(range(len(self._starts)), key=lambda i: self._ends[i] - self._starts[i])
            start, length = self._starts[run], self._ends[run] - self._starts[run]
            if start > 0:  # into page 0 nobody grows
                start += max(0, min(length // 2, length - rest))
            taken += self._carve(run, start, rest)
        return taken

    def share(self, pages: Iterable[int]) -> None:
        """Count one more holder for each. Raises: LocalStateError for a page that nobody holds."""
        for page in pages:
            if not self._holders[page]:
                raise LocalStateError("only a held page can be shared")
            self.idle -= self.is_idle(page)
            self._holders[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Count one holder less for each; whatever has none left is wiped, and then free."""
        left: list[int] = []
        for page in pages:
            if not self._holders[page]:
                raise LocalStateError("a page was released more often than it was held")
            self._holders[page] -= 1
            self.idle += self.is_idle(page)
            if not self._holders[page]:
                left.append(page)
        if left:
            self._wipe(left)
            for page in left:
                self._free(page)

    def cache(self, page: int) -> None:
        """Let the cache be one more holder."""
        self.share((page,))
        self._cached[page] = 1

    def uncache(self, pages: list[int]) -> None:
        for page in pages:
            self.idle -= self.is_idle(page)
            self._cached[page] = 0
        self.release(pages)

    def _carve(self, run: int, start: int, count: int) -> range:
        """Take up to `count` pages out of a run, from `start` on."""
        begin, end = self._starts[run], self._ends[run]
        stop = min(start + count, end)
        pieces = [(a, b) for a, b in ((begin, start), (stop, end)) if a < b]
        self._starts[run : run + 1] = [a for a, _ in pieces]
        self._ends[run : run + 1] = [b for _, b in pieces]
        for page in range(start, stop):
            self._holders[page] = 1
        self.free -= stop - start
        return range(start, stop)

    def _free(self, page: int) -> None:
        after = bisect_right(self._starts, page)
        joins_left = after > 0 and self._ends[after - 1] == page
        joins_right = after < len(self._starts) and self._starts[after] == page + 1
        if joins_left and joins_right:
            self._ends[after - 1] = self._ends.pop(after)
            del self._starts[after]
        elif joins_left:
            self._ends[after - 1] = page + 1
        elif joins_right:
            self._starts[after] = page
        else:
            self._starts.insert(after, page)
            self._ends.insert(after, page + 1)
        self.free += 1
