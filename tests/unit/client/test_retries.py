"""openai's own retries over our transports: none runs a call again that an enclave may have run."""

from typing import Any

import httpx2
import openai
import pytest
from confide import relay as relay_module
from confide.errors import NotConfide, OutcomeUnknown, RefusedAfterSending
from confide.fetch import Limits
from confide.retries import COUNT, MAX_ENDS, Ends
from confide.transport import transports
from confide_attestation.errors import AppraisalRejected, EvidenceMalformed
from confide_protocol import labels
from confide_protocol.errors import (
    ConfideError,
    DecryptionFailed,
    PolicyError,
    ReceiptInvalid,
    RelayRefused,
    TooLarge,
    Truncated,
)

from tests.fakes.counting import Counting, Step, clear, raising
from tests.fakes.peer import JSON
from tests.fakes.scene import Scene

SAID = b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[]}'


def whole(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
    """Answer in one body."""
    wire.peer.open(sealed)
    wire.opened.append(wire.peer.enc_digest)
    return 200, labels.MEDIA_RESPONSE, wire.peer.answer(sealed, [SAID], content_type=JSON)


def cut(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
    status, media, pieces = whole(wire, sealed)
    return status, media, pieces[:-1]


def busy(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
    """Refuse inside the seal."""
    wire.peer.open(sealed)
    body = b'{"error":{"message":"Busy.","type":"server_error","code":"busy"}}'
    refused = wire.peer.answer(sealed, [body], status=503, content_type=JSON)
    return 200, labels.MEDIA_RESPONSE, refused


class Asking:
    """A client of openai's that retries, over our transport."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *script: Step, recover_s: float = 0.01) -> None:
        self.wire = Counting(httpx2, *script, *[whole] * 9)
        monkeypatch.setattr(relay_module, "fetch_evidence", self.wire.fetch)
        monkeypatch.setattr("confide.transport._Sealed._pool", lambda *_: self.wire)
        monkeypatch.setattr("confide.delivery.FIRST_WAIT_S", 0.001)
        monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_: 0.0)
        relay = self.wire.peer.relay(limits=Limits(recover_s=recover_s))
        transport = transports(httpx2)[0]("http://gateway.test", relay=relay)
        http = httpx2.Client(transport=transport)
        self.client = openai.OpenAI(base_url="http://gateway.test/v1", api_key="k", http_client=http, max_retries=2)

    def ask(self, content: str = "hello") -> None:
        messages: Any = [{"role": "user", "content": content}]
        self.client.chat.completions.create(model="m", messages=messages)

    def fault(self) -> BaseException:
        """Return what the call ends in, below what openai makes of it."""
        with pytest.raises((openai.APIConnectionError, ConfideError)) as caught:
            self.ask()
        below = caught.value.__cause__
        return caught.value if below is None else below


ENDS = {
    "the way breaks": ([raising("ReadError", opened=True), *[clear(503)] * 99], OutcomeUnknown),
    "the answer is cut": ([cut], Truncated),
    "the library waits no more": ([raising("ReadTimeout", opened=True)], OutcomeUnknown),
    "refused after sending": ([clear(429)], RefusedAfterSending),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_call_that_may_have_run_is_not_run_by_a_retry(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """openai asks again; what comes back is how the first try ended, and nothing more is sealed."""
    script, error = ENDS[end]
    asking = Asking(monkeypatch, *script)
    assert isinstance(asking.fault(), error)
    assert len(set(asking.wire.seen_bytes)) == 1
    assert asking.wire.executions <= 1


def test_a_new_call_of_the_same_words_is_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks again by himself is answered."""
    asking = Asking(monkeypatch, cut)
    asking.fault()
    asking.ask()
    assert asking.wire.executions == 2


def test_where_nothing_left_a_retry_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection for longer than our own patience; openai's retry finds one."""

    asking = Asking(monkeypatch, raising("ConnectTimeout"), recover_s=0)
    asking.ask()
    assert asking.wire.executions == 1


def test_what_failed_signed_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed 504 came after the enclave's limit of work: no retry, and openai's own error."""

    def too_long(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
        wire.peer.open(sealed)
        wire.opened.append(wire.peer.enc_digest)
        body = b'{"error":{"message":"Too long.","type":"server_error","code":"timeout"}}'
        return 200, labels.MEDIA_RESPONSE, wire.peer.answer(sealed, [body], status=504, content_type=JSON)

    asking = Asking(monkeypatch, too_long)
    with pytest.raises(openai.InternalServerError):
        asking.ask()
    assert asking.wire.executions == 1


def test_what_the_enclave_refused_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed 503 says that nothing was run."""
    asking = Asking(monkeypatch, busy)
    asking.ask()
    assert asking.wire.executions == 1


def test_a_retry_after_another_call_s_end_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is of one body; other words are another call."""
    asking = Asking(monkeypatch, cut)
    asking.fault()
    asking.wire.script.insert(0, busy)
    asking.ask("other words")
    assert asking.wire.executions == 2


def open_cut() -> None:
    raise Truncated


def test_what_is_remembered_is_bounded_and_holds_no_word() -> None:
    """The latest ends, each a digest and an error without the frames that it came through."""
    ends = Ends()
    for number in range(MAX_ENDS + 1):
        request = httpx2.Request("POST", "http://g/v1", headers={COUNT: "0"}, content=b"CANARY %d" % number)
        with pytest.raises(Truncated) as caught:
            open_cut()
        ends.note(request, caught.value)
    assert len(ends._ends) == MAX_ENDS
    assert "CANARY" not in repr(ends._ends)
    assert all(fault.__traceback__ is None for _, fault in ends._ends)
    with pytest.raises(Truncated):
        ends.demand_first(httpx2.Request("POST", "http://g/v1", headers={COUNT: "1"}, content=b"CANARY 5"))
    ends.demand_first(httpx2.Request("POST", "http://g/v1", headers={COUNT: "0"}, content=b"CANARY 5"))


FAULTS = (
    AppraisalRejected(Scene().appraise()),
    DecryptionFailed(),
    EvidenceMalformed("what", "snp.format"),
    NotConfide(404, "text"),
    PolicyError("file", "field", "remedy"),
    ReceiptInvalid("what", part="signature"),
    RefusedAfterSending(429, "text"),
    RelayRefused(400, "text"),
    TooLarge("text"),
    Truncated(),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_an_error_comes_back_as_it_was(fault: ConfideError) -> None:
    """Whatever its constructor demands."""
    ends = Ends()
    ends.note(httpx2.Request("POST", "http://g/v1", headers={COUNT: "0"}, content=b"x"), fault)
    with pytest.raises(type(fault)) as caught:
        ends.demand_first(httpx2.Request("POST", "http://g/v1", headers={COUNT: "1"}, content=b"x"))
    assert caught.value is not fault
    assert (str(caught.value), vars(caught.value)) == (str(fault), vars(fault))


def test_other_libraries_are_not_remembered() -> None:
    """Without the field nobody retries in this way."""
    ends = Ends()
    ends.note(httpx2.Request("POST", "http://g/v1", content=b"x"), Truncated())
    assert not ends._ends
