"""No bit of a receipt can change, and no bytes do more than fail as declared."""

from contextlib import suppress
from dataclasses import replace

import pytest
from confide_protocol import cbor
from confide_protocol.audit.air import verify_air
from confide_protocol.audit.disclosure import disclose_part, verify_part
from confide_protocol.errors import Malformed, ReceiptInvalid
from confide_protocol.receipt import parse_claims, parse_receipt, sign_receipt, verify_receipt
from confide_protocol.transcript import ResponseTranscript
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.receipts import CLAIMS, ED25519, KEYSET, ML_DSA_65, sign_payload, tagged

RECEIPT = sign_receipt(CLAIMS, ED25519, ML_DSA_65)
NAMES = st.text(min_size=1, max_size=40)
DIGESTS = st.binary(min_size=32, max_size=32)
COUNTS = st.integers(0, 1 << 31)
INTEGERS = st.integers(-(1 << 64), (1 << 64) - 1)


def test_no_bit_can_flip() -> None:
    """Every single flipped bit of the envelope, headers and claims, and many of the signatures', is refused."""
    claims_end = RECEIPT.index(CLAIMS.encoded) + len(CLAIMS.encoded) + 120
    for bit in (*range(8 * claims_end), *range(8 * claims_end, 8 * len(RECEIPT), 13)):
        data = bytearray(RECEIPT)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ReceiptInvalid):
            verify_receipt(bytes(data), KEYSET)


@given(at=st.integers(0, len(RECEIPT) - 1), size=st.integers(0, 40), put=st.binary(max_size=40))
def test_no_bytes_can_be_replaced(at: int, size: int, put: bytes) -> None:
    """Cutting out, putting in and replacing bytes is refused wherever it changes anything."""
    data = RECEIPT[:at] + put + RECEIPT[at + size :]
    if data != RECEIPT:
        with pytest.raises(ReceiptInvalid):
            verify_receipt(data, KEYSET)


@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: b"\xd8\x62\x84" + tail)))
def test_arbitrary_bytes_raise_only_declared_errors(data: bytes) -> None:
    """Parsers raise Malformed, verifiers ReceiptInvalid, and nothing accepts noise."""
    for parse in (parse_receipt, parse_claims):
        with pytest.raises(Malformed):
            parse(data)
    with pytest.raises(ReceiptInvalid):
        verify_receipt(data, KEYSET)
    with pytest.raises(ReceiptInvalid):
        verify_air(data, KEYSET.receipt_ed25519)


@given(
    label=st.sampled_from([265, 6, *range(-66022, -66000)]),
    value=st.recursive(
        st.none() | st.booleans() | INTEGERS | st.text(max_size=20) | st.binary(max_size=40),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | INTEGERS, inner),
        max_leaves=5,
    ),
)
def test_any_claim_is_typed_or_refused(label: int, value: object) -> None:
    """A claim of any CBOR value either is refused as Malformed or encodes back to the same bytes."""
    payload = cbor.encode(cbor.decode(CLAIMS.encoded) | {label: value})
    with suppress(Malformed):
        assert parse_claims(payload).encoded == payload


@given(
    sampling=st.dictionaries(NAMES, NAMES | st.integers(-(1 << 60), 1 << 60), max_size=8),
    digest=DIGESTS,
    count=COUNTS,
    model=NAMES,
    seed=st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
    outcome=st.sampled_from(["complete", "refused", "aborted"]),
)
def test_what_is_encoded_is_parsed(
    sampling: dict[str, str | int], digest: bytes, count: int, model: str, seed: int | None, outcome: str
) -> None:
    """Claims of any allowed value come back equal, and the encoding is the hand-made one."""
    claims = replace(
        CLAIMS,
        sampling=sampling,
        transcript_root=digest,
        chunk_count=count,
        model=model,
        seed=seed,
        outcome=outcome,
    )
    assert parse_claims(claims.encoded) == claims
    assert parse_receipt(tagged(sign_payload(claims.encoded))).payload == claims.encoded


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=20), max_size=20),
    messages=st.lists(st.binary(max_size=20), max_size=4),
    salt=DIGESTS,
    choice=st.integers(0, 100),
)
def test_every_part_of_any_transcript_can_be_disclosed(
    chunks: list[bytes], messages: list[bytes], salt: bytes, choice: int
) -> None:
    """One part verifies by its own salt, and does not verify at its neighbour's place."""
    transcript = ResponseTranscript(salt)
    transcript.head(200, "text/event-stream")
    for chunk in chunks:
        transcript.chunk(chunk)
    digests = transcript.finish(messages)
    if not chunks:
        return
    index = choice % len(chunks)
    part = disclose_part(salt, digests, "chunk", index, chunks[index])
    known = {"root": digests.root, "message_count": len(messages), "chunk_count": len(chunks)}
    verify_part(part, **known)
    with pytest.raises(ReceiptInvalid):
        verify_part(replace(part, index=index + 1), **known)
