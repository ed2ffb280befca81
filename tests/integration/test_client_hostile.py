"""A gateway that lies, before a real enclave: always a typed error, never an answer that looks whole."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import confide
import httpx2
import pytest
from confide.errors import OutcomeUnknown
from confide_attestation.errors import AppraisalRejected, EvidenceMalformed
from confide_attestation.evidence import encode_bundle, parse_bundle
from confide_protocol import labels
from confide_protocol.errors import (
    ConfideError,
    DecryptionFailed,
    Malformed,
    RelayRefused,
    Truncated,
)
from confide_protocol.keyset import parse_keyset

from tests.fakes.hostile import Answer, Frames, Hostile, hostile_gateway
from tests.fakes.stack import Stack, ask

FAULTS: dict[str, Callable[[Frames, int], Frames]] = {
    "drop": lambda frames, n: frames[:n] + frames[n + 1 :],
    "repeat": lambda frames, n: frames[: n + 1] + frames[n:],
    "reorder": lambda frames, n: [*frames[:n], *frames[n : n + 2][::-1], *frames[n + 2 :]],
    "truncate": lambda frames, n: frames[:n],
    "cut within": lambda frames, n: [*frames[:n], frames[n][: len(frames[n]) // 2]],
    "garble": lambda frames, n: [*frames[:n], frames[n][:-1] + bytes([frames[n][-1] ^ 1]), *frames[n + 1 :]],
}
UNOPENED = (DecryptionFailed, Malformed, Truncated)


@pytest.fixture(scope="module")
def running(stack: Stack) -> Iterator[Hostile]:
    with hostile_gateway(stack.url) as hostile:
        yield hostile


@pytest.fixture
def hostile(running: Hostile) -> Hostile:
    running.reset()
    return running


@pytest.fixture
def client(stack: Stack, hostile: Hostile) -> confide.OpenAI:
    return stack.openai(base_url=hostile.url, limits=confide.Limits(recover_s=0.2))


def fault_of(call: Callable[[], Any]) -> Exception | None:
    """Return the error that a call ends in, if any, of whatever kind."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - the test looks at its kind
        return error
    return None


def stream(client: confide.OpenAI) -> list[Any]:
    """Stream a short answer to its end."""
    return list(ask(client, stream=True, max_tokens=2))


def test_an_honest_proxy_is_no_obstacle(client: confide.OpenAI, hostile: Hostile) -> None:
    """The fixture itself passes good answers, streamed and plain."""
    assert stream(client)
    assert client.models.list().data
    assert len(hostile.answers[-1]) > 8


@pytest.mark.parametrize("fault", FAULTS)
def test_tampering_at_every_boundary_of_a_body(client: confide.OpenAI, hostile: Hostile, fault: str) -> None:
    """Whatever happens to any chunk of a plain answer, the call is a typed error."""
    client.models.list()
    for n in range(len(hostile.answers[-1])):
        changed: list[bool] = []

        def tamper(frames: Frames, n: int = n, changed: list[bool] = changed) -> Frames:
            bad = FAULTS[fault](frames, n)
            changed.append(bad != frames)
            return bad

        hostile.frames = tamper
        client._relay.last_receipt = None
        error = fault_of(client.models.list)
        assert isinstance(error, UNOPENED) or (error is None and changed == [False]), (fault, n, error)


@pytest.mark.parametrize("fault", FAULTS)
def test_tampering_at_every_boundary_of_a_stream(client: confide.OpenAI, hostile: Hostile, fault: str) -> None:
    """Whatever happens to any chunk of a stream, it ends in a typed error and without a receipt."""
    assert stream(client)
    for n in range(len(hostile.answers[-1])):
        hostile.frames = lambda frames, n=n: FAULTS[fault](frames, n)
        client._relay.last_receipt = None
        error = fault_of(lambda: stream(client))
        last = n == len(hostile.answers[-1]) - 1
        if fault == "reorder" and last:
            continue  # there is nothing behind the last chunk to change places with
        assert isinstance(error, UNOPENED), (fault, n)
        assert client.last_receipt is None


def test_a_swapped_keyset(client: confide.OpenAI, hostile: Hostile) -> None:
    """The gateway puts a keyset of its own into the evidence: refused, nothing is sealed to it."""

    def swap(data: bytes) -> bytes:
        evidence, endorsements = parse_bundle(data)
        own = replace(parse_keyset(evidence.keyset), receipt_ed25519=bytes(32))
        return encode_bundle(replace(evidence, keyset=own.encoded), endorsements)

    hostile.evidence, before = swap, len(hostile.requests)
    with pytest.raises(AppraisalRejected) as caught:
        ask(client)
    assert "keyset_digest" in [check.id for check in caught.value.result.failed]
    assert len(hostile.requests) == before


def test_yesterdays_evidence(stack: Stack, client: confide.OpenAI, hostile: Hostile) -> None:
    """Evidence that answered somebody else's nonce: refused for the nonce alone."""
    kept: list[bytes] = []
    hostile.evidence = lambda data: kept.append(data) or data
    stack.relay(hostile.url).ready()
    hostile.evidence = lambda data: kept[0]
    with pytest.raises(AppraisalRejected) as caught:
        ask(client)
    assert [check.id for check in caught.value.result.failed] == ["nonce"]


@pytest.mark.parametrize("garbage", [b"", b"CANARY", b"\xa0", bytes(5 << 20)], ids=["empty", "text", "map", "huge"])
def test_garbage_for_evidence(client: confide.OpenAI, hostile: Hostile, garbage: bytes) -> None:
    """What is no bundle is EvidenceMalformed (or too large), and is never shown."""
    hostile.evidence = lambda data: garbage
    with pytest.raises(ConfideError) as caught:
        ask(client)
    assert isinstance(caught.value, EvidenceMalformed) or caught.value.code == "too_large"
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, "application/json", [b'{"choices":[{"message":{"content":"CANARY"}}]}']),
        Answer(200, "text/event-stream", [b'data: {"choices":[]}\n\ndata: [DONE]\n\n']),
        Answer(503, labels.MEDIA_PROBLEM, [labels.PROBLEMS[503]]),
        Answer(400, "text/plain", [b"CANARY"]),
        Answer(429, labels.MEDIA_RESPONSE, [b"CANARY"]),
    ],
    ids=["json", "events", "problem", "text", "sealed-type"],
)
def test_an_answer_in_clear(client: confide.OpenAI, hostile: Hostile, answer: Answer) -> None:
    """Clear bytes are never data, whatever their status and type, and are never shown."""
    hostile.instead = lambda sealed: answer
    for call in (lambda: client.models.list(), lambda: list(ask(client, stream=True))):
        with pytest.raises((RelayRefused, OutcomeUnknown), match=str(answer.status)) as caught:
            call()
        assert isinstance(caught.value, OutcomeUnknown) is (answer.status == 200)
        assert "CANARY" not in str(caught.value)


def test_the_request_reflected(client: confide.OpenAI, hostile: Hostile) -> None:
    """Our own bytes as the answer do not open."""
    hostile.instead = lambda sealed: Answer(200, labels.MEDIA_RESPONSE, [sealed])
    with pytest.raises(UNOPENED):
        client.models.list()


def test_an_old_answer_again(client: confide.OpenAI, hostile: Hostile) -> None:
    """The good answer to an earlier request of the same client does not open for a later one."""
    client.models.list()
    old = hostile.answers[-1]
    hostile.instead = lambda sealed: Answer(200, labels.MEDIA_RESPONSE, old)
    with pytest.raises(UNOPENED):
        client.models.list()


def test_a_captured_request_again(stack: Stack, client: confide.OpenAI, hostile: Hostile) -> None:
    """The same sealed bytes open once: the second time is a constant 409, any other path the constant 400."""
    client.models.list()
    captured = hostile.requests[-1]
    digest = stack.relay().ready().keyset.digest.hex()
    headers = {"authorization": f"Bearer {stack.ground.api_key}", "content-type": labels.MEDIA_REQUEST}
    for path, status in ((digest, 409), ("00" * 32, 400)):
        again = httpx2.post(
            stack.url + labels.PATH_OHTTP + path, headers=headers, content=captured, trust_env=False
        )
        assert (again.status_code, again.content) == (status, labels.PROBLEMS[status])


def test_a_captured_request_at_another_enclave(stack: Stack, client: confide.OpenAI, hostile: Hostile) -> None:
    """Another enclave with the same image and model cannot open it, whichever keyset the path names."""
    client.models.list()
    captured = hostile.requests[-1]
    other = stack.ground.start_enclave(name="other").ready()
    secret = (stack.ground.folder / "gateway.secret").read_text().strip()
    headers = {"authorization": f"Bearer {secret}", "content-type": labels.MEDIA_REQUEST}
    digest = stack.relay().ready().keyset.digest.hex()
    try:
        for path in (other["keyset"], digest):
            url = other["url"] + labels.PATH_OHTTP + path
            again = httpx2.post(url, headers=headers, content=captured, trust_env=False)
            assert (again.status_code, again.content) == (400, labels.PROBLEMS[400])
    finally:
        stack.ground.stop("other")
