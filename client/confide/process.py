"""What a forked child must not share with its parent: connections, locks, answers under way."""

import os
from typing import Protocol
from weakref import WeakSet

from confide_protocol.errors import LocalStateError


class Anew(Protocol):
    """Something that starts anew in a child process."""

    def begin_process(self) -> None: ...


_forks = 0
_living: WeakSet[Anew] = WeakSet()


def begin_in_children(each: Anew) -> None:
    """Have `each.begin_process()` called in every child that this process forks, for as long as `each` lives."""
    _living.add(each)


def forks() -> int:
    """Return how many forks lie between the first process and this one; it differs in a child."""
    return _forks


def demand_same(born: int) -> None:
    """Raises: LocalStateError in a process other than the one in which `forks()` returned `born`."""
    if born != _forks:
        raise LocalStateError("an answer that began before a fork belongs to the parent process")


def _forked() -> None:
    global _forks
    _forks += 1
    for each in list(_living):
        each.begin_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
