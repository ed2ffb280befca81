"""The session against an enclave's side that lies in every way it can."""

import os
from collections.abc import Callable, Sequence
from itertools import product

import pytest
from confide.session import ClientSession, Exchange
from confide_attestation.errors import AppraisalRejected, EvidenceMalformed
from confide_protocol import labels
from confide_protocol.errors import (
    ConfideError,
    DecryptionFailed,
    EngineError,
    LocalStateError,
    Malformed,
    ReceiptInvalid,
    RelayRefused,
    TooLarge,
    Truncated,
)

from tests.fakes.peer import DONE, JSON, Peer, a_call, a_peer, differing, said
from tests.fakes.scene import NONCE, NOW

WORDS = ("The", " capital", " is", " Paris", ".")
SHAPES = (labels.SHAPE_NONE, labels.SHAPE_BUCKETED)


def read(exchange: Exchange, chunks: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return what was shown before the end, and at it."""
    before = [part for chunk in chunks for part in exchange.push(chunk)]
    return before, exchange.finish()


def shown_before(exchange: Exchange, chunks: Sequence[bytes]) -> tuple[list[bytes], ConfideError]:
    """Read an answer that must fail; return what was shown and the error."""
    shown: list[bytes] = []
    try:
        for chunk in chunks:
            shown += exchange.push(chunk)
        shown += exchange.finish()
    except ConfideError as error:
        return shown, error
    pytest.fail("the answer was taken for whole")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stream_comes_back_whole_and_verified(shape: str) -> None:
    """Events are shown as they come, [DONE] only once the receipt has been verified."""
    peer = a_peer(shape)
    exchange = peer.exchange()
    before, at_end = read(exchange, peer.stream(exchange, *WORDS))
    assert before + at_end == said(*WORDS)
    assert at_end[-1] == DONE
    assert DONE not in before
    assert exchange.receipt is not None
    assert exchange.receipt.claims.message_count == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plain_body_is_withheld_to_the_end(shape: str) -> None:
    """Nothing of a body that is no stream is shown before its receipt has been verified."""
    peer = a_peer(shape)
    exchange = peer.exchange()
    body = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Paris."}}]}'
    chunks = peer.answer(exchange.body, [body], content_type=JSON, messages=[b"Paris."])
    assert read(exchange, chunks) == ([], [body])


@pytest.mark.parametrize("step", [1, 7, 100])
def test_how_the_bytes_are_cut_changes_nothing(step: int) -> None:
    """Any cutting of the sealed bytes gives the same events."""
    peer = a_peer()
    exchange = peer.exchange()
    data = b"".join(peer.stream(exchange, *WORDS))
    before, at_end = read(exchange, [data[at : at + step] for at in range(0, len(data), step)])
    assert before + at_end == said(*WORDS)


def test_the_request_carries_what_binds_it() -> None:
    """The sealed header has date, nonce, evidence, policy, shape, salt and cache key, and the SDK's own fields."""
    peer = Peer(labels.SHAPE_BUCKETED)
    session = peer.session()
    call = session.call(
        "POST",
        "/v1/chat/completions",
        [("Authorization", "Bearer k"), ("Host", "h"), ("X-Stainless-Lang", "python"), ("cookie", "a=b")],
        b"{}",
    )
    exchange = session.seal(call, NOW)
    peer.open(exchange.body)
    attested = session.attested(NOW)
    assert attested is not None
    assert peer.fields[labels.FIELD_DATE] == "Fri, 15 Jan 2027 08:00:00 GMT"
    assert peer.fields[labels.FIELD_NONCE] == call.nonce.hex()
    assert peer.fields[labels.FIELD_EVIDENCE] == attested.statement_digest.hex()
    assert peer.fields[labels.FIELD_POLICY] == peer.policy.digest.hex()
    assert peer.fields[labels.FIELD_SHAPE] == "bucketed"
    assert peer.fields[labels.FIELD_SALT] == call.salt.hex()
    assert len(bytes.fromhex(peer.fields[labels.FIELD_CACHE_KEY])) == 32
    assert peer.fields["x-stainless-lang"] == "python"
    assert not {"authorization", "host", "cookie"} & set(peer.fields)
    assert exchange.path == "/ohttp/" + attested.keyset.digest.hex()
    assert dict(exchange.header_fields).keys() == {"content-type", "accept", "incremental"}


def test_equal_sized_requests_look_alike() -> None:
    """In the bucketed shape the sealed length tells the bucket alone."""
    session = a_peer(labels.SHAPE_BUCKETED).session()
    sizes = {len(session.seal(a_call(session, b"x" * n), NOW).body) for n in range(0, 200, 40)}
    assert len(sizes) == 1


def test_sealing_again_keeps_nonce_and_salt_alone() -> None:
    """A second sealing of one call is fresh ciphertext with the same confide-nonce and salt."""
    peer = Peer()
    session = peer.session()
    call = a_call(session)
    kept, encs = [], set()
    for _ in range(2):
        encs.add(peer.open(session.seal(call, NOW).body).enc_digest)
        kept.append((peer.fields[labels.FIELD_NONCE], peer.fields[labels.FIELD_SALT]))
    assert kept[0] == kept[1]
    assert len(encs) == 2


def test_one_client_has_one_cache_tenant() -> None:
    """The cache key stays the same within a session and differs between sessions."""
    peer, keys = Peer(), []
    for session in (one := peer.session(), one, peer.session()):
        peer.open(session.seal(a_call(session), NOW).body)
        keys.append(peer.fields[labels.FIELD_CACHE_KEY])
    assert keys[0] == keys[1] != keys[2]


def test_callers_with_keys_of_their_own_share_no_cache() -> None:
    """Behind one session each API key is a tenant; what is said of it names neither the key nor the session's."""
    peer, keys = Peer(), []
    session = peer.session()
    for caller in ("", "Bearer one", "Bearer two", "Bearer one"):
        peer.open(session.seal(a_call(session), NOW, caller).body)
        keys.append(peer.fields[labels.FIELD_CACHE_KEY])
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]
    peer.open((other := peer.session()).seal(a_call(other), NOW, "Bearer one").body)
    assert peer.fields[labels.FIELD_CACHE_KEY] not in keys


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cut_answer_never_looks_whole(shape: str) -> None:
    """Cut at any chunk boundary, and one byte beside it, the answer is an error and [DONE] was not shown."""
    peer = a_peer(shape)
    ends = [0]
    for chunk in peer.stream(peer.exchange(), *WORDS):
        ends.append(ends[-1] + len(chunk))
    for end in sorted({at + step for at in ends for step in (-1, 0, 1) if 0 <= at + step < ends[-1]}):
        exchange = peer.exchange()
        data = b"".join(peer.stream(exchange, *WORDS))
        assert len(data) == ends[-1]
        shown, error = shown_before(exchange, [data[:end]])
        assert isinstance(error, (Truncated, DecryptionFailed)), end
        assert DONE not in shown


def test_chunks_lost_mixed_or_doubled_are_noticed() -> None:
    """Every single loss, swap and repetition of chunks is an error before [DONE]."""
    peer = a_peer()
    faults: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
        "lost": lambda chunks, n: chunks[:n] + chunks[n + 1 :],
        "doubled": lambda chunks, n: chunks[: n + 1] + chunks[n:],
        "swapped": lambda chunks, n: [*chunks[:n], *chunks[n : n + 2][::-1], *chunks[n + 2 :]],
    }
    count = len(peer.stream(peer.exchange(), *WORDS))
    for (name, fault), n in product(faults.items(), range(count)):
        exchange = peer.exchange()
        chunks = peer.stream(exchange, *WORDS)
        if (bad := fault(chunks, n)) != chunks:
            shown, error = shown_before(exchange, bad)
            assert isinstance(error, (Truncated, DecryptionFailed, Malformed)), (name, n)
            assert DONE not in shown


def test_the_request_reflected_is_no_answer() -> None:
    """Our own sealed bytes sent back do not open as a response."""
    exchange = a_peer().exchange()
    shown, error = shown_before(exchange, [exchange.body])
    assert shown == []
    assert isinstance(error, (DecryptionFailed, Malformed, Truncated))


def test_the_answer_to_another_request_is_no_answer() -> None:
    """A good answer to one exchange does not open in another."""
    peer = a_peer()
    other, exchange = peer.exchange(), peer.exchange()
    shown, error = shown_before(exchange, peer.stream(other, *WORDS))
    assert shown == []
    assert isinstance(error, DecryptionFailed)


def test_a_clear_answer_is_refused_unread() -> None:
    """Any status but 200, any other media type: RelayRefused, with the status alone in its text."""
    exchange = a_peer().exchange()
    for status, kind in ((400, labels.MEDIA_PROBLEM), (200, JSON), (200, ""), (502, labels.MEDIA_RESPONSE)):
        with pytest.raises(RelayRefused) as caught:
            exchange.answered(status, kind)
        assert caught.value.status == status
    exchange.answered(200, labels.MEDIA_RESPONSE)


LIES = {
    "keyset_digest": bytes(32),
    "statement_digest": bytes(32),
    "manifest_digest": bytes(32),
    "request_commitment": bytes(32),
    "response_commitment": bytes(32),
    "transcript_root": bytes(32),
    "chunk_count": 3,
    "message_count": 0,
    "enc_digest": bytes(32),
    "model": "another",
    "status": 201,
    "dialect": "ohttp",
    "suite": "x25519/hkdf-sha256/aes-128-gcm",
    "shape": "bucketed",
    "simulated": False,
    "client_asserted": {"nonce": bytes(32), "policy": bytes(32)},
}


@pytest.mark.parametrize("claim", LIES)
def test_a_receipt_of_another_exchange_is_refused(claim: str) -> None:
    """Each claim that differs from what the client knows makes the answer an error, and [DONE] stays unshown."""
    peer = a_peer()
    exchange = peer.exchange()
    chunks = peer.stream(exchange, *WORDS, claims=differing(**{claim: LIES[claim]}))
    shown, error = shown_before(exchange, chunks)
    assert isinstance(error, ReceiptInvalid)
    assert DONE not in shown


@pytest.mark.parametrize(
    "trailers",
    [
        lambda text: (),
        lambda text: ((labels.FIELD_RECEIPT, text), (labels.FIELD_RECEIPT, text)),
        lambda text: ((labels.FIELD_RECEIPT, text + "="),),
        lambda text: ((labels.FIELD_RECEIPT, text[:-8]),),
        lambda text: ((labels.FIELD_RECEIPT, "!" + text[1:]),),
        lambda text: ((labels.FIELD_RECEIPT, ""),),
    ],
    ids=["none", "two", "padded", "cut", "alphabet", "empty"],
)
def test_an_answer_needs_exactly_one_readable_receipt(trailers) -> None:
    """A receipt that is absent, doubled or malformed is ReceiptInvalid."""
    peer = a_peer()
    exchange = peer.exchange()
    _, error = shown_before(exchange, peer.stream(exchange, *WORDS, trailers=trailers))
    assert isinstance(error, ReceiptInvalid)


def test_a_receipt_by_other_keys_is_refused() -> None:
    """A receipt under keys that the evidence does not vouch for is ReceiptInvalid."""
    peer, stranger = Peer(), Peer()
    exchange = peer.exchange()
    peer.ed25519 = stranger.ed25519
    _, error = shown_before(exchange, peer.stream(exchange, *WORDS))
    assert isinstance(error, ReceiptInvalid)


def test_an_aborted_answer_is_an_error() -> None:
    """An answer that the enclave broke off, honestly signed, still never looks whole."""
    peer = a_peer()
    exchange = peer.exchange()
    shown, error = shown_before(exchange, peer.stream(exchange, *WORDS, outcome="aborted"))
    assert isinstance(error, EngineError)
    assert DONE not in shown


def test_a_refusal_is_an_answer() -> None:
    """A sealed error status with a good receipt is handed to the application as it is."""
    peer = a_peer()
    exchange = peer.exchange()
    body = b'{"error":{"message":"no","type":"invalid_request_error"}}'
    chunks = peer.answer(exchange.body, [body], status=400, content_type=JSON, outcome="refused")
    assert read(exchange, chunks) == ([], [body])
    assert exchange.head is not None
    assert exchange.head.status == 400


def test_an_answer_has_a_limit() -> None:
    """An answer larger than max_answer_bytes ends in TooLarge."""
    peer = a_peer()
    session = peer.session(max_answer_bytes=100)
    exchange = session.seal(a_call(session), NOW)
    _, error = shown_before(exchange, peer.stream(exchange, *WORDS * 20))
    assert isinstance(error, TooLarge)


def test_nothing_is_sealed_unverified() -> None:
    """Before verification, and from the end of its validity on, sealing is refused."""
    peer = a_peer()
    session = ClientSession(peer.policy, floor=0, allow_simulated=True, random=os.urandom)
    call = a_call(session)
    with pytest.raises(LocalStateError):
        session.seal(call, NOW)
    until = session.verify(peer.bundle, NONCE, NOW).valid_until_unix_s
    session.seal(call, until - 1)
    with pytest.raises(LocalStateError):
        session.seal(call, until)
    assert session.renewal_due(until - 1)


@pytest.mark.parametrize(
    ("options", "nonce"),
    [({"allow_simulated": False}, NONCE), ({"floor": 9}, NONCE), ({}, b"o" * 32)],
    ids=["simulated", "rollback", "yesterday"],
)
def test_evidence_that_fails_leaves_nothing_to_seal_to(options: dict, nonce: bytes) -> None:
    """Simulated hardware unasked for, a rolled-back policy and a stale nonce are refused, checks and all."""
    peer = a_peer()
    session = ClientSession(peer.policy, **{"floor": 0, "allow_simulated": True, "random": os.urandom, **options})
    with pytest.raises(AppraisalRejected) as caught:
        session.verify(peer.bundle, nonce, NOW)
    assert caught.value.result.failed
    assert session.attested(NOW) is None


def test_failed_renewal_keeps_what_was_verified() -> None:
    """Garbage in a renewal is an error and leaves the valid keyset in force."""
    session = a_peer().session()
    with pytest.raises(EvidenceMalformed):
        session.verify(b"garbage", NONCE, NOW)
    assert session.attested(NOW) is not None


@pytest.mark.parametrize("bad", [lambda n: bytes(n), lambda n: b"x", lambda n: b"x" * (n + 1)])
def test_a_failed_generator_is_noticed(bad) -> None:
    """Zeros or a wrong length from the generator stop the client before it seals."""
    with pytest.raises(LocalStateError):
        ClientSession(a_peer().policy, floor=0, allow_simulated=True, random=bad)


@pytest.mark.parametrize(
    ("method", "fields"),
    [("CONNECT", []), ("GET", [("Upgrade", "websocket")]), ("GET", [("Confide-Nonce", "0" * 64)])],
)
def test_what_cannot_be_sealed_is_refused(method: str, fields: list[tuple[str, str]]) -> None:
    """Upgrades, CONNECT and the session's own field names never leave."""
    with pytest.raises(LocalStateError):
        a_peer().session().call(method, "/v1/x", fields, b"")


def test_no_repr_shows_a_secret() -> None:
    """Calls, receipts and sessions print neither words, salts nor nonces."""
    peer = a_peer()
    session = peer.session()
    call = a_call(session, b"CANARY", "/v1/CANARY")
    exchange = session.seal(call, NOW)
    read(exchange, peer.stream(exchange, "CANARY"))
    for shown in map(repr, (call, exchange, exchange.receipt, session, exchange.receipt.disclosure)):
        assert "CANARY" not in shown
        assert call.salt.hex() not in shown
        assert repr(call.salt) not in shown
