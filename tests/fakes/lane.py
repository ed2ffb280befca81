"""A lane on the CPU, where Triton's interpreter stands in for a GPU; what is recorded is run again from memory."""

import gc
from collections.abc import Callable, Iterator

import torch
from confide_enclave.engine.lane import Lane, T
from torch import Tensor


class HostLane(Lane):
    """Counts what it is asked. `fault` is raised by the next thing that a device would do."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.replays = self.erased = self.fetches = self.released = 0
        self.fault: Exception | None = None
        self.lost = False
        self.spare = (1 << 50, 1 << 50)

    def memory(self) -> tuple[int, int]:
        return self.spare

    def send(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        self._act()
        return x.clone() if out is None else out.copy_(x)

    def fetch(self, ids: Tensor) -> Callable[[], list[int]]:
        self._act()
        self.fetches += 1
        return ids.tolist

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        kept = work()

        def again() -> None:
            self._act()
            self.replays += 1
            for old, new in zip(_tensors(kept), _tensors(work()), strict=True):
                old.copy_(new)

        return again, kept

    def erase(self) -> None:
        self.erased += 1

    def release(self) -> None:
        gc.collect()
        self.released += 1

    def survives(self) -> bool:
        return not self.lost

    def _act(self) -> None:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault


def _tensors(tree: object) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple):
        for each in tree:
            yield from _tensors(each)
