"""What is sent again, and what never is: a gateway that fails in every way, and nodes that count what they open."""

import time
from typing import Any

import pytest
from confide import relay as relay_module
from confide.errors import OutcomeUnknown
from confide_protocol import labels
from confide_protocol.errors import RelayRefused, RelayUnreachable, Truncated

from tests.fakes.counting import PROBLEM, WHOLE, Asking, Counting, Step, broken_off, clear, lost, raising
from tests.fakes.peer import Peer, a_peer


@pytest.mark.parametrize(
    "script",
    [
        (raising("ConnectError"), raising("ConnectError")),
        (raising("ConnectTimeout"),),
        (clear(503), clear(503)),
        (raising("ReadError"),),
        (raising("RemoteProtocolError"), clear(503)),
        (clear(503), raising("ConnectError"), clear(503)),
        (lost(clear(503)),),
        (lost(clear(400)),),
        (lost(clear(502)),),
        (clear(502),),
    ],
    ids=lambda script: f"{len(script)} faults",
)
def test_what_was_not_run_is_run_once(
    library: str, script: tuple[Step, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps the request from a node, the call succeeds, and one node opened it once."""
    asking = Asking(library, monkeypatch, *script)
    assert asking.ask() == WHOLE
    assert asking.wire.executions == 1


def test_only_the_same_bytes_are_sent_twice_to_a_node(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a break what goes out again is what went out before, byte for byte."""
    asking = Asking(library, monkeypatch, raising("ReadError"), clear(503), raising("ReadError"))
    asking.ask()
    assert len(asking.wire.seen_bytes) == 4
    assert len(set(asking.wire.seen_bytes)) == 1


def test_what_a_dead_node_had_begun_is_asked_of_another(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte of an answer had come, and the gateway says that nobody holds the key: sealed anew, once."""
    asking = Asking(library, monkeypatch, lost(broken_off), clear(400))
    assert asking.ask() == WHOLE
    assert len(set(asking.wire.seen_bytes)) == 2


def test_a_gateway_that_finds_the_node_a_moment_later(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """400, and evidence of the very key that was sealed to: the same bytes again, and no more than once."""
    asking = Asking(library, monkeypatch, clear(400))
    assert asking.ask() == WHOLE
    assert (len(asking.wire.seen_bytes), len(set(asking.wire.seen_bytes))) == (2, 1)
    asking = Asking(library, monkeypatch, *[clear(400)] * 5)
    with pytest.raises(RelayRefused, match="400"):
        asking.ask()
    assert (len(asking.wire.seen_bytes), len(set(asking.wire.seen_bytes))) == (2, 1)


def test_a_gateway_killed_and_started_anew_finds_the_node_a_moment_later(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way broke before any node, then 400 from a gateway that knew none: the same bytes again, run once."""
    asking = Asking(library, monkeypatch, raising("ReadError"), clear(400))
    assert asking.ask() == WHOLE
    assert (len(asking.wire.seen_bytes), len(set(asking.wire.seen_bytes))) == (3, 1)


@pytest.mark.parametrize("status", [400, 502])
def test_what_replaces_a_lost_node_was_verified_after_the_loss(
    library: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next keyset was verified in time by another call, and died with it: it is not sealed to."""

    def rotate_and_die(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
        wire.peer = Peer()
        asking.relay.verify()
        wire.peer = Peer()
        return status, PROBLEM, []

    asking = Asking(library, monkeypatch, rotate_and_die, *[clear(400)] * (status == 502))
    assert asking.ask() == WHOLE
    assert len(set(asking.wire.seen_bytes)) == 2


def test_a_call_is_sealed_anew_once(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that swaps nodes for ever gets two sealings out of a call, and no more."""
    asking = Asking(library, monkeypatch, *[lost(clear(400))] * 5)
    with pytest.raises(RelayRefused):
        asking.ask()
    assert len(set(asking.wire.seen_bytes)) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 413, 429])
def test_other_refusals_are_final(library: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end the call at once, with what to do where that is known."""
    asking = Asking(library, monkeypatch, clear(status))
    with pytest.raises(RelayRefused, match=str(status)):
        asking.ask()
    assert len(asking.wire.seen_bytes) == 1


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (raising("ConnectError"), RelayUnreachable),
        (clear(503), RelayRefused),
        (clear(502), OutcomeUnknown),
        (raising("ReadError"), OutcomeUnknown),
    ],
)
def test_patience_ends(library: str, script: Step, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """After recover_s the fault itself is raised."""
    asking = Asking(library, monkeypatch, *[script] * 10_000, recover_s=0.05)
    began_s = time.monotonic()
    with pytest.raises(error):
        asking.ask()
    assert time.monotonic() - began_s < 3


def test_without_patience_nothing_is_repeated(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """recover_s=0: one try; a stale key alone is replaced."""
    for script, error in ((clear(503), RelayRefused), (raising("ReadError"), RelayUnreachable)):
        asking = Asking(library, monkeypatch, script, recover_s=0)
        with pytest.raises(error):
            asking.ask()
        assert len(asking.wire.seen_bytes) == 1
    assert Asking(library, monkeypatch, lost(clear(400)), recover_s=0).ask() == WHOLE


def test_a_time_out_is_the_librarys(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What took too long may have been run: it is not sent again, and keeps its name."""
    asking = Asking(library, monkeypatch, raising("ReadTimeout"))
    with pytest.raises(asking.module.ReadTimeout):
        asking.ask()
    assert len(asking.wire.seen_bytes) == 1


def test_once_begun_nothing_is_repeated(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that breaks is Truncated, and one execution."""

    def breaking(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
        return 200, labels.MEDIA_RESPONSE, wire.run(sealed)[:-1]

    asking = Asking(library, monkeypatch, breaking)
    with pytest.raises(Truncated):
        asking.ask()
    assert asking.wire.executions == len(asking.wire.seen_bytes) == 1


def test_first_contact_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was ever verified the URL may be wrong: the caller hears at once."""
    tries: list[int] = []

    def away(*args: Any) -> bytes:
        tries.append(1)
        raise RelayUnreachable

    asking = Asking("httpx2-sync", monkeypatch)
    monkeypatch.setattr(relay_module, "fetch_evidence", away)
    with pytest.raises(RelayUnreachable):
        asking.ask()
    assert tries == [1]
    assert a_peer().relay().warm is False
