"""Salted commitments and the tree over a response's parts."""

import hashlib
import hmac
from dataclasses import replace

import pytest
from confide_protocol import labels, transcript
from confide_protocol.audit.disclosure import disclose_part, verify_part
from confide_protocol.errors import LocalStateError, ReceiptInvalid
from confide_protocol.transcript import ResponseTranscript, TranscriptDigests
from hypothesis import given
from hypothesis import strategies as st

SALT = bytes(range(32))
MESSAGES = [b"Paris.", b"Lyon."]
CHUNKS = [b"data: {}\n\n", b"data: {1}\n\n", b"data: [DONE]\n\n"]


def transcribe(chunks: list[bytes], messages: list[bytes], salt: bytes = SALT) -> TranscriptDigests:
    response = ResponseTranscript(salt)
    response.head(200, "text/event-stream")
    for chunk in chunks:
        response.chunk(chunk)
    return response.finish(messages)


def test_salts_are_hmac_of_label_and_index() -> None:
    """A derived salt is HMAC-SHA256 under the caller's salt over the label and a big-endian index."""
    expected = hmac.new(SALT, labels.SALT_CHUNK + b"\0\0\1\2", "sha256").digest()
    assert transcript.derive_salt(SALT, labels.SALT_CHUNK, 258) == expected


@given(key=st.binary(max_size=64), data=st.binary(max_size=300))
def test_hmac_is_the_librarys(key: bytes, data: bytes) -> None:
    """The short form of HMAC-SHA256 gives what the standard library's gives."""
    assert transcript._hmac(key, data) == hmac.digest(key, data, "sha256")


def test_a_salt_of_another_length_is_refused() -> None:
    """A short salt would weaken every commitment: it is the caller's fault."""
    with pytest.raises(LocalStateError):
        transcript.derive_salt(SALT[:31], labels.SALT_CHUNK)


def test_request_commitment_depends_on_every_input() -> None:
    """Another salt, method, path or body gives another commitment, and so does moving bytes between them."""
    base = (SALT, "POST", "/v1/chat/completions", b"{}")
    others = [
        (bytes(32), *base[1:]),
        (SALT, "GET", *base[2:]),
        (SALT, "POST", "/v1/models", b"{}"),
        (*base[:3], b"{ }"),
        (SALT, "POS", "T/v1/chat/completions", b"{}"),
    ]
    assert len({transcript.request_commitment(*case) for case in [base, *others]}) == 6


def test_the_commitment_ignores_cuts_but_the_root_does_not() -> None:
    """The response commitment covers the joined bytes, the root each chunk by itself."""
    whole, cut = transcribe([b"ab"], []), transcribe([b"a", b"b"], [])
    assert whole.commitment == cut.commitment
    assert whole.root != cut.root


def test_head_and_order_are_committed() -> None:
    """Status, content type and the order of chunks all reach the commitment."""
    other = ResponseTranscript(SALT)
    other.head(400, "text/event-stream")
    assert other.finish().commitment != transcribe([], []).commitment
    assert transcribe(CHUNKS, []).commitment != transcribe(CHUNKS[::-1], []).commitment


def test_an_empty_chunk_counts_for_nothing() -> None:
    """Sides that differ in flushing nothing agree all the same."""
    assert transcribe([b"", *CHUNKS, b""], MESSAGES) == transcribe(CHUNKS, MESSAGES)


def test_messages_and_chunks_are_separate_kinds() -> None:
    """The same bytes as message and as chunk have different leaves and roots."""
    assert transcribe([b"x"], []).root != transcribe([], [b"x"]).root


def test_an_empty_transcript_has_a_root_of_its_own() -> None:
    """No parts: the root is the hash of the bare node label."""
    digests = transcribe([], [])
    assert (digests.chunk_count, digests.message_count) == (0, 0)
    assert digests.root == hashlib.sha256(labels.LABEL_TRANSCRIPT_NODE).digest()


def test_calls_out_of_order_are_the_callers_fault() -> None:
    """A transcript takes one head, then chunks, then one finish."""
    fresh = ResponseTranscript(SALT)
    for early in (lambda: fresh.chunk(b"x"), fresh.finish):
        with pytest.raises(LocalStateError):
            early()
    fresh.head(200, "application/json")
    with pytest.raises(LocalStateError):
        fresh.head(200, "application/json")
    fresh.finish()
    for late in (lambda: fresh.chunk(b"x"), fresh.finish):
        with pytest.raises(LocalStateError):
            late()


@pytest.mark.parametrize("count", range(1, 12))
def test_every_part_can_be_disclosed(count: int) -> None:
    """Each message and chunk proves itself under the root, for trees of every small size."""
    chunks = [b"%d" % i for i in range(count)]
    digests = transcribe(chunks, MESSAGES)
    parts = [disclose_part(SALT, digests, "message", i, text) for i, text in enumerate(MESSAGES)]
    parts += [disclose_part(SALT, digests, "chunk", i, chunk) for i, chunk in enumerate(chunks)]
    for part in parts:
        verify_part(part, root=digests.root, message_count=2, chunk_count=count)


def test_a_changed_disclosure_is_refused() -> None:
    """Another kind, index, salt, content, path, root or count does not verify."""
    digests = transcribe(CHUNKS, MESSAGES)
    part = disclose_part(SALT, digests, "chunk", 1, CHUNKS[1])
    known = {"root": digests.root, "message_count": 2, "chunk_count": 3}
    verify_part(part, **known)
    forged = [
        replace(part, kind="message"),
        replace(part, index=0),
        replace(part, index=-1),
        replace(part, index=3),
        replace(part, salt=bytes(32)),
        replace(part, salt=part.salt + b"\0"),
        replace(part, content=CHUNKS[0]),
        replace(part, path=part.path[:-1]),
        replace(part, path=(*part.path, bytes(32))),
        replace(part, path=(part.path[0][:31], *part.path[1:])),
    ]
    for other in forged:
        with pytest.raises(ReceiptInvalid) as caught:
            verify_part(other, **known)
        assert caught.value.part == "transcript_root"
    for change in ({"root": bytes(32)}, {"root": b""}, {"message_count": 3}, {"chunk_count": 1}):
        with pytest.raises(ReceiptInvalid):
            verify_part(part, **known | change)


def test_what_was_not_said_cannot_be_disclosed() -> None:
    """Disclosing content that is not the part is the caller's fault."""
    digests = transcribe(CHUNKS, MESSAGES)
    for kind, index, content in (("chunk", 0, b"no"), ("chunk", 3, b""), ("message", -1, MESSAGES[1])):
        with pytest.raises(LocalStateError):
            disclose_part(SALT, digests, kind, index, content)


def test_neither_salt_nor_content_shows_in_a_repr() -> None:
    """A disclosed part may be logged by accident without telling anything."""
    part = disclose_part(SALT, transcribe(CHUNKS, MESSAGES), "message", 0, MESSAGES[0])
    assert "Paris" not in repr(part)
    assert "salt" not in repr(part)
