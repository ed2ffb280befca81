"""One stream of work on a device: what is asked of it is done in the order of the asking, and nobody waits."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Lane(Protocol):
    """Belongs to one thread, all of whose work on the device goes here."""

    @property
    def device(self) -> torch.device: ...

    def memory(self) -> tuple[int, int]:
        """Return how many bytes are free, and how many there are."""
        ...

    def send(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return a tensor of the CPU on the device, in `out` if given; the other may be changed at once."""
        ...

    def fetch(self, ids: Tensor) -> Callable[[], list[int]]:
        """Begin to bring int64 numbers back; what is returned waits for them, and so for all that came before."""
        ...

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Do work once; return what does it again, on the same memory, and the memory of its result."""
        ...

    def erase(self) -> None:
        """Zero what is left, of work that is done, in memory that no tensor holds. Waits."""
        ...

    def release(self) -> None:
        """Give back to the device, for whoever needs it next, what no tensor holds. Waits."""
        ...

    def survives(self) -> bool:
        """Say whether the device still works, after something went wrong."""
        ...
