"""Once an enclave may have run a call, nothing seals it anew, and nothing hides that it may have run."""

from typing import Any

import pytest
from confide import relay as relay_module
from confide.errors import NotConfide, OutcomeUnknown, RefusedAfterSending, refused
from confide.proxy.refusals import may_retry
from confide_attestation.errors import AttestationError
from confide_attestation.evidence import Endorsements, encode_bundle

from tests.fakes.counting import Asking, Step, broken_off, clear, lost, raising
from tests.fakes.scene import Scene


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


@pytest.mark.parametrize("opened", [True, False])
def test_what_may_be_finished_is_not_asked_of_another(
    library: str, opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's own way broke, and the node is gone: it may have finished the call before it went."""
    asking = Asking(library, monkeypatch, lost(raising("ReadError", opened=opened)), clear(400))
    with pytest.raises(OutcomeUnknown):
        asking.ask()
    assert len(set(asking.wire.seen_bytes)) == 1


@pytest.mark.parametrize("before", [(), (clear(503),), (clear(502),), (raising("ReadError"),)])
def test_what_was_opened_before_is_not_asked_of_another(
    library: str, before: tuple[Step, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """409, also to what seems the first try, for some libraries try twice: no question, no second sealing."""
    asking = Asking(library, monkeypatch, *before, lost(clear(409)))
    with pytest.raises(OutcomeUnknown):
        asking.ask()
    assert len(set(asking.wire.seen_bytes)) == 1


@pytest.mark.parametrize("bundle", [b"", None])
def test_evidence_that_is_refused_does_not_hide_that_it_may_have_run(
    library: str, bundle: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node died after it had opened the bytes, and nothing that is there now is trusted: both is told."""
    asking = Asking(library, monkeypatch, lost(broken_off), clear(400))
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


@pytest.mark.parametrize("status", [200, 302, 500, 504])
def test_what_is_no_refusal_leaves_it_unknown(library: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node was silent for too long, or something on the way failed: it may be at work."""
    asking = Asking(library, monkeypatch, clear(status))
    with pytest.raises(OutcomeUnknown, match=str(status)):
        asking.ask()
    assert len(asking.wire.seen_bytes) == 1


def test_a_node_that_outlived_a_break_may_have_finished(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's way to it broke twice; between, the node was there; then it is gone."""
    asking = Asking(library, monkeypatch, broken_off, lost(clear(502)))
    with pytest.raises(OutcomeUnknown):
        asking.ask()
    assert len(set(asking.wire.seen_bytes)) == 1
