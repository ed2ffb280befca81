"""Connections: one pool an event loop, none over a fork or a sleep."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from confide import pools
from confide.pools import Pools
from confide.process import demand_same, forks
from confide.transport import Transport
from confide_protocol.errors import LocalStateError

from tests.fakes.child import in_child
from tests.fakes.peer import Wire, a_peer, said


class Pool:
    """Stands for an HTTP library's transport."""


async def two(given: Pools) -> tuple[Any, Any]:
    return given.of_loop(), given.of_loop()


def test_a_loop_keeps_its_pool() -> None:
    """The same within a loop, another in the next; a closed loop's is let go."""
    given = Pools(Pool)
    first, again = asyncio.run(two(given))
    assert first is again
    other, _ = asyncio.run(two(given))
    assert other is not first
    gc.collect()
    assert len(given._loops) <= 1


def test_threads_share_a_pool() -> None:
    """The sync side has one for all threads, until it is closed."""
    given, seen = Pools(Pool), []
    thread = threading.Thread(target=lambda: seen.append(given.sync()))
    thread.start()
    thread.join()
    assert given.sync() is seen[0]
    assert given.drop() is seen[0]
    assert given.drop() is None
    assert given.sync() is not seen[0]


def test_a_child_has_its_own() -> None:
    """After a fork nothing of the parent's is used, closed or let go of."""
    given = Pools(Pool)
    own = given.sync()
    assert in_child(lambda: given.sync() is not own and own in given._abandoned)
    assert given.sync() is own


def test_after_a_sleep_connections_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall's clock ran ahead of the other: what was open is not trusted to be."""
    given, now = Pools(Pool), pools.time.time()
    first = given.sync()
    assert given.sync() is first
    monkeypatch.setattr(pools.time, "time", lambda: now + 3600)
    awake = given.sync()
    assert awake is not first
    assert given.sync() is awake


def test_answers_do_not_cross_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that the parent began cannot be read on in a child; the parent reads it to its end."""
    from confide import relay as relay_module

    wire = Wire(a_peer(), httpx2)
    monkeypatch.setattr(relay_module, "fetch_evidence", wire.fetch)
    monkeypatch.setattr("confide.transport._Sealed._pool", lambda *_: wire)
    client = httpx2.Client(transport=Transport("http://gateway.test", relay=a_peer().relay()))
    with client.stream("POST", "http://gateway.test/v1/chat/completions", json={}) as response:
        pieces: Iterator[bytes] = response.iter_raw()
        seen = next(pieces)

        def refused() -> bool:
            with pytest.raises(LocalStateError, match="fork"):
                list(pieces)
            return True

        assert in_child(refused)
        assert seen + b"".join(pieces) == b"".join(said("Par", "is."))


def test_forks_are_counted() -> None:
    """The number differs in a child alone."""
    here = forks()
    demand_same(here)
    assert in_child(lambda: forks() == here + 1)
    assert forks() == here
