"""What is sent again, and what never is: a gateway that fails in every way, and nodes that count what they open."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest
from confide import relay as relay_module
from confide.errors import NotConfide, OutcomeUnknown, RefusedAfterSending, refused
from confide.fetch import Limits
from confide.proxy.refusals import may_retry
from confide.transport import transports
from confide_attestation.errors import AttestationError
from confide_attestation.evidence import Endorsements, encode_bundle
from confide_protocol import labels
from confide_protocol.errors import DecryptionFailed, RelayRefused, RelayUnreachable, Truncated

from tests.fakes.peer import Peer, Wire, a_peer, said
from tests.fakes.scene import NOW, Scene

URL = "http://gateway.test/v1/chat/completions"
PROBLEM = labels.MEDIA_PROBLEM
Step = Callable[["Counting", bytes], tuple[int, str, Any]]


class Counting(Wire):
    """A gateway before nodes that open each sealed message once, as SPEC 6.4 says; `script` says how it fails."""

    def __init__(self, module: Any, *script: Step) -> None:
        super().__init__(Peer(), module)
        self.script = list(script)
        self.opened: list[bytes] = []
        self.seen_bytes: list[bytes] = []
        self.gone: set[int] = set()
        self.asked = 0
        self.reply = self._next

    @property
    def executions(self) -> int:
        return len(self.opened)

    def _next(self, sealed: bytes) -> tuple[int, str, Any]:
        self.seen_bytes.append(sealed)
        step = self.script.pop(0) if self.script else honest
        return step(self, sealed)

    def fetch(self, url, nonce, authorization, limits, link, keyset=None) -> bytes:
        if keyset is not None:
            self.asked += 1
            held = self.peer.trusting.attested(NOW)
            if held is None or held.keyset.digest != keyset:
                raise refused(400)
        return super().fetch(url, nonce, authorization, limits, link, keyset)

    def run(self, sealed: bytes) -> list[bytes]:
        self.peer.open(sealed)
        self.opened.append(self.peer.enc_digest)
        return self.peer.answer(sealed, said("Par", "is."), messages=[b"Paris."])


def honest(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
    """Open what was not opened before; everything else is 400."""
    try:
        wire.peer.open(sealed)
    except DecryptionFailed:
        return 400, PROBLEM, []
    if wire.peer.enc_digest in wire.opened:
        return 400, PROBLEM, []
    return 200, labels.MEDIA_RESPONSE, wire.run(sealed)


def clear(status: int) -> Step:
    return lambda wire, sealed: (status, PROBLEM, [])


def raising(name: str, *, opened: bool = False) -> Step:
    """Fail in the network; with `opened` the node has run the request all the same."""

    def step(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
        if opened:
            wire.run(sealed)
        raise getattr(wire.module, name)("CANARY")

    return step


def lost(then: Step) -> Step:
    """The node dies, with or without having begun; another one takes its place behind the gateway."""

    def step(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
        try:
            return then(wire, sealed)
        finally:
            wire.peer = Peer()

    return step


class Asking:
    """One library in one colour over a scripted gateway."""

    def __init__(
        self, library: str, monkeypatch: pytest.MonkeyPatch, *script: Step, recover_s: float = 5.0
    ) -> None:
        name, colour = library.split("-")
        self.module = {"httpx": httpx, "httpx2": httpx2}[name]
        self.wire = Counting(self.module, *script)
        monkeypatch.setattr(relay_module, "fetch_evidence", self.wire.fetch)
        monkeypatch.setattr("confide.transport._Sealed._pool", lambda *_: self.wire)
        monkeypatch.setattr("confide.delivery.FIRST_WAIT_S", 0.001)
        self.relay = self.wire.peer.relay(limits=Limits(recover_s=recover_s))
        self.asynchronous = colour == "async"
        self.transport = transports(self.module)[self.asynchronous]("http://gateway.test", relay=self.relay)

    def ask(self) -> bytes:
        return asyncio.run(self._ask_async()) if self.asynchronous else self._ask()

    def _ask(self) -> bytes:
        with self.module.Client(transport=self.transport) as client:
            return client.post(URL, json={"stream": True}).content

    async def _ask_async(self) -> bytes:
        async with self.module.AsyncClient(transport=self.transport) as client:
            return (await client.post(URL, json={"stream": True})).content


@pytest.fixture(params=["httpx2-sync", "httpx2-async", "httpx-sync"])
def library(request: pytest.FixtureRequest) -> str:
    return request.param


WHOLE = b"".join(said("Par", "is."))


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
        (lost(raising("ReadError")),),
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


@pytest.mark.parametrize("fault", ["ReadError", "RemoteProtocolError", "WriteError"])
def test_an_answer_that_is_lost_is_not_asked_for_twice(
    library: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A living node ran it and the way broke: the same bytes are refused twice, and that is the end."""
    asking = Asking(library, monkeypatch, raising(fault, opened=True))
    with pytest.raises(OutcomeUnknown) as caught:
        asking.ask()
    assert asking.wire.executions == 1
    assert len(set(asking.wire.seen_bytes)) == 1
    assert asking.wire.asked == 2
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 429, 500, 502, 503, 504, None])
def test_a_later_refusal_does_not_hide_that_it_may_have_run(
    library: str, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way broke after a node opened the bytes: whatever the gateway says next, that is told."""
    then = raising("ConnectError") if status is None else clear(status)
    script = [raising("ReadError", opened=True), *[then] * 1000]
    asking = Asking(library, monkeypatch, *script, recover_s=0.05)
    with pytest.raises(OutcomeUnknown) as caught:
        asking.ask()
    assert asking.wire.executions == 1
    assert not may_retry(caught.value)


def test_a_gateway_that_is_away_when_asked_of_the_node(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are refused after a break, and the question after the node is answered 503: still unknown."""
    asking = Asking(library, monkeypatch, raising("ReadError", opened=True), recover_s=0.05)
    asking.relay.ready()

    def busy(*args: Any, **options: Any) -> bytes:
        raise refused(503)

    monkeypatch.setattr(relay_module, "fetch_evidence", busy)
    with pytest.raises(OutcomeUnknown):
        asking.ask()


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_after_sealed_bytes_left_says_so(
    library: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the gateway's word, unauthenticated: no caller is told to ask again by itself. Before sealing it is."""
    asking = Asking(library, monkeypatch, *[clear(status)] * 1000, recover_s=0.05)
    with pytest.raises(RefusedAfterSending) as caught:
        asking.ask()
    assert caught.value.status == status
    assert not may_retry(caught.value)
    assert may_retry(refused(status))


def test_nodes_that_die_for_ever_end_without_a_call_for_retries(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed anew after a break, then refused: no later refusal hides that the node that died may have run it."""
    script = [lost(raising("ReadError", opened=True)), clear(400), *[clear(503)] * 1000]
    asking = Asking(library, monkeypatch, *script, recover_s=0.05)
    with pytest.raises(OutcomeUnknown) as caught:
        asking.ask()
    assert not may_retry(caught.value)


def test_only_the_same_bytes_are_sent_twice_to_a_node(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a break what goes out again is what went out before, byte for byte."""
    asking = Asking(library, monkeypatch, raising("ReadError"), clear(503), raising("ReadError"))
    asking.ask()
    assert len(asking.wire.seen_bytes) == 4
    assert len(set(asking.wire.seen_bytes)) == 1


def test_what_a_dead_node_had_begun_is_asked_of_another(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte of an answer had come, and the gateway says that nobody holds the key: sealed anew, once."""
    asking = Asking(library, monkeypatch, lost(raising("ReadError", opened=True)), clear(400))
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


def test_what_replaces_a_lost_node_was_verified_after_the_loss(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next keyset was verified in time by another call, and died with it: it is not sealed to."""

    def rotate_and_die(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
        wire.peer = Peer()
        asking.relay.verify()
        wire.peer = Peer()
        raise wire.module.ReadError("CANARY")

    asking = Asking(library, monkeypatch, rotate_and_die, clear(400))
    assert asking.ask() == WHOLE
    assert len(set(asking.wire.seen_bytes)) == 2


@pytest.mark.parametrize("bundle", [b"", None])
def test_evidence_that_is_refused_does_not_hide_that_it_may_have_run(
    library: str, bundle: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node died after it had opened the bytes, and nothing that is there now is trusted: both is told."""
    script = [lost(raising("ReadError", opened=True)), clear(400)]
    asking = Asking(library, monkeypatch, *script)
    asking.relay.ready()
    untrusted = Scene().build()[0] if bundle is None else None
    honest_fetch = asking.wire.fetch

    def fetch(url, nonce, authorization, limits, link, keyset=None) -> bytes:
        if keyset is not None:
            return honest_fetch(url, nonce, authorization, limits, link, keyset)
        return b"" if untrusted is None else encode_bundle(untrusted, Endorsements())

    monkeypatch.setattr(relay_module, "fetch_evidence", fetch)
    with pytest.raises(OutcomeUnknown) as caught:
        asking.ask()
    assert isinstance(caught.value.__cause__, AttestationError)
    assert not may_retry(caught.value)


def test_a_web_server_does_not_say_that_a_node_is_gone(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 400 that is none of a gateway's, where the gateway was: the call stays in doubt."""
    asking = Asking(library, monkeypatch, raising("ReadError", opened=True), clear(400))
    asking.relay.ready()

    def foreign(*args: Any, **options: Any) -> bytes:
        raise NotConfide(400)

    monkeypatch.setattr(relay_module, "fetch_evidence", foreign)
    with pytest.raises(OutcomeUnknown):
        asking.ask()
    assert asking.wire.executions == 1


def test_a_call_is_sealed_anew_once(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that swaps nodes for ever gets two sealings out of a call, and no more."""
    asking = Asking(library, monkeypatch, *[lost(clear(400))] * 5)
    with pytest.raises(RelayRefused):
        asking.ask()
    assert len(set(asking.wire.seen_bytes)) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 413, 429, 504])
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
