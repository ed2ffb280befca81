"""Receipts: each layer of verification refuses what is its to refuse, and by its name."""

from dataclasses import replace
from typing import Any

import pytest
from confide_protocol import cbor, labels
from confide_protocol.errors import LocalStateError, Malformed, ReceiptInvalid
from confide_protocol.receipt import check_receipt, key_id, parse_receipt, sign_receipt, verify_receipt
from confide_protocol.transcript import TranscriptDigests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.receipts import (
    CLAIMS,
    ED25519,
    EXPECTED,
    ISSUED_UNIX_S,
    KEYSET,
    ML_DSA_65,
    claim_tree,
    sign_payload,
    tagged,
)

PAYLOAD = CLAIMS.encoded
OTHER_KID = key_id(b"another key")
EDDSA = {1: -8, 4: key_id(KEYSET.receipt_ed25519)}
ML_DSA = {1: -49, 4: key_id(KEYSET.receipt_ml_dsa_65)}


def refusal(data: bytes) -> str:
    with pytest.raises(ReceiptInvalid) as caught:
        verify_receipt(data, KEYSET)
    return caught.value.part


def test_a_signed_receipt_verifies_and_fits_its_exchange() -> None:
    """What was signed comes back, equal, and passes the check of its own exchange."""
    claims = verify_receipt(sign_receipt(CLAIMS, ED25519, ML_DSA_65), KEYSET)
    assert claims == CLAIMS
    check_receipt(claims, EXPECTED)


def test_the_envelope_is_cose_sign() -> None:
    """Tag 98, the header of a CWT, EdDSA before ML-DSA-65, kid of 8 bytes: as RFC 9052 has it."""
    data = sign_receipt(CLAIMS, ED25519, ML_DSA_65)
    body, unprotected, payload, signatures = cbor.decode(data.removeprefix(b"\xd8\x62"))
    assert (body, unprotected, payload) == (bytes.fromhex("a103183d"), {}, PAYLOAD)
    assert [cbor.decode(protected) for protected, _, _ in signatures] == [EDDSA, ML_DSA]
    assert [len(signature) for _, _, signature in signatures] == [64, 3309]
    assert cbor.decode(payload)[265] == labels.EAT_PROFILE_RECEIPT
    assert len(data) < 6144


def test_a_refusal_needs_no_statement_and_no_assertion() -> None:
    """A request without our headers still gets a receipt, which claims nothing for the client."""
    claims = replace(CLAIMS, outcome="refused", status=400, statement_digest=None, client_asserted={})
    assert verify_receipt(sign_receipt(claims, ED25519, ML_DSA_65), KEYSET) == claims


# --- Layer 1: parse


def test_what_is_not_a_cose_sign_is_not_parsed() -> None:
    """Other tags, no tag, other shapes and trailing bytes fail at the first layer."""
    good = sign_payload(PAYLOAD)
    assert tagged(good) == sign_receipt(CLAIMS, ED25519, ML_DSA_65)[:2] + cbor.encode(good)
    for data in (
        b"",
        b"\xd8\x62",
        cbor.encode(good),
        tagged(good, b"\xd2"),
        tagged(good, b"\xd8\x62\xd8\x62"),
        tagged(good) + b"\0",
        tagged(good[:3]),
        tagged([*good, b""]),
        tagged([good[0], {}, None, good[3]]),
        tagged([good[0], {}, PAYLOAD, b""]),
        tagged([good[0], {}, PAYLOAD, [b"", b""]]),
        b"\xd8\x62" + cbor.encode({}),
    ):
        assert refusal(data) == "parse"
        with pytest.raises(Malformed):
            parse_receipt(data)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_unprotected_header_is_refused(place: int) -> None:
    """Nothing may stand where no signature covers it."""
    unprotected: list[dict[Any, Any]] = [{}, {}, {}]
    unprotected[place] = {4: b"kid"}
    assert refusal(tagged(sign_payload(PAYLOAD, unprotected=tuple(unprotected)))) == "parse"


@pytest.mark.parametrize("body", [{}, {3: 60}, {3: 61, 1: -8}])
def test_another_body_header_is_refused(body: dict[int, Any]) -> None:
    """The body's protected header is exactly that of a CWT, even where both signatures cover another."""
    assert refusal(tagged(sign_payload(PAYLOAD, body=body))) == "parse"


@pytest.mark.parametrize(
    "header", [{1: -8}, {4: EDDSA[4]}, {**EDDSA, 3: 61}, {1: "EdDSA", 4: EDDSA[4]}, {1: -8, 4: "k"}]
)
def test_another_signature_header_is_refused(header: dict[int, Any]) -> None:
    """A signature's protected header is exactly alg and kid."""
    assert refusal(tagged(sign_payload(PAYLOAD, headers=(header, ML_DSA)))) == "parse"


def test_an_open_claim_map_is_refused() -> None:
    """An unknown claim, a missing one and a map out of order fail before any signature is looked at."""
    tree = claim_tree()
    for wrong in (tree | {-66099: 1}, tree | {"extra": 1}, {k: v for k, v in tree.items() if k != 6}):
        assert refusal(tagged(sign_payload(cbor.encode(wrong)))) == "parse"
    shuffled = b"\xb8\x18" + b"".join(cbor.encode(k) + cbor.encode(v) for k, v in reversed(tree.items()))
    assert len(shuffled) == len(PAYLOAD)
    assert refusal(tagged(sign_payload(shuffled))) == "parse"


def test_an_oversized_receipt_is_refused() -> None:
    """A receipt over 16 KiB is not read."""
    assert refusal(tagged(sign_payload(PAYLOAD + bytes(16_384)))) == "parse"


# --- Layer 2: alg and kid


def test_signatures_can_be_neither_stripped_nor_repeated_nor_swapped() -> None:
    """Exactly EdDSA, then ML-DSA-65."""
    body, free, payload, (first, second) = sign_payload(PAYLOAD)
    third = [cbor.encode({1: -7, 4: OTHER_KID}), {}, bytes(64)]
    for signatures in (
        [],
        [first],
        [second],
        [first, first],
        [second, second],
        [second, first],
        [first, second, second],
        [first, second, third],
    ):
        assert refusal(tagged([body, free, payload, signatures])) == "alg"


@pytest.mark.parametrize(
    "headers",
    [
        (EDDSA | {1: -7}, ML_DSA),
        (EDDSA | {1: -19}, ML_DSA),
        (EDDSA, ML_DSA | {1: -48}),
        (EDDSA | {1: -49}, ML_DSA | {1: -8}),
        (EDDSA | {4: OTHER_KID}, ML_DSA),
        (EDDSA, ML_DSA | {4: OTHER_KID}),
        (EDDSA | {4: EDDSA[4] + b"\0"}, ML_DSA),
        (EDDSA | {4: b""}, ML_DSA),
    ],
)
def test_another_alg_or_kid_is_refused(headers: tuple[dict[int, Any], ...]) -> None:
    """An alg or kid that is not the keyset's is refused though its signature covers it."""
    assert refusal(tagged(sign_payload(PAYLOAD, headers=headers))) == "alg"


def test_the_receipt_of_another_keyset_is_refused() -> None:
    """The kid of another keyset's key is not this one's."""
    other = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
    assert refusal(sign_receipt(CLAIMS, other, ML_DSA_65)) == "alg"


# --- Layer 3: signatures


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("forge", [lambda s: bytes(len(s)), lambda s: s[:-1], lambda s: s + b"\0", lambda s: b""])
def test_both_signatures_are_required(which: int, forge: Any) -> None:
    """One good signature is not enough, whichever it is."""
    message = sign_payload(PAYLOAD)
    message[3][which][2] = forge(message[3][which][2])
    assert refusal(tagged(message)) == "signature"


def test_a_signature_over_another_payload_is_refused() -> None:
    """Signatures do not move between receipts, not even one at a time."""
    good, other = sign_payload(PAYLOAD), sign_payload(replace(CLAIMS, status=500).encoded)
    for signatures in (other[3], [other[3][0], good[3][1]], [good[3][0], other[3][1]]):
        assert refusal(tagged([*good[:3], signatures])) == "signature"


def test_a_bare_signature_over_the_payload_is_refused() -> None:
    """Only the Sig_structure counts: a signature of other bytes by the same keys is none."""
    message = sign_payload(PAYLOAD)
    message[3][0][2] = ED25519.sign(PAYLOAD)
    assert refusal(tagged(message)) == "signature"


# --- Layer 4: claims


@pytest.mark.parametrize(
    ("label", "value"),
    [
        (265, "https://spec.cyntrisec.com/air/v1"),
        (265, None),
        (6, -1),
        (6, "0"),
        (-66001, b"\1" * 31),
        (-66002, None),
        (-66004, None),
        (-66007, -1),
        (-66007, True),
        (-66010, ""),
        (-66011, "done"),
        (-66012, 100),
        (-66013, []),
        (-66013, {"temperature": True}),
        (-66013, {1: "x"}),
        (-66014, "7"),
        (-66021, 1),
        (-66022, {"nonce": b""}),
        (-66022, {"nonce": b"\1" * 32, "verdict": b"\1" * 32}),
    ],
)
def test_a_signed_claim_of_the_wrong_kind_is_refused(label: int, value: Any) -> None:
    """Even the enclave's own signatures make no claim of another type, range or profile true."""
    assert refusal(tagged(sign_payload(cbor.encode(claim_tree() | {label: value})))) == "claims"


@pytest.mark.parametrize(
    "changes",
    [
        {"keyset_digest": b"\1" * 32},
        {"manifest_digest": b"\1" * 32},
        {"simulated": False},
        {"issued_unix_s": KEYSET.not_before_unix_s - 1},
        {"issued_unix_s": KEYSET.not_after_unix_s + labels.KEYSET_GRACE_S + 1},
    ],
)
def test_claims_that_contradict_the_keyset_are_refused(changes: dict[str, Any]) -> None:
    """Keyset, manifest, SIMULATED flag and time of issue agree with the keyset that signed."""
    assert refusal(sign_receipt(replace(CLAIMS, **changes), ED25519, ML_DSA_65)) == "claims"


def test_a_receipt_of_the_grace_time_verifies() -> None:
    """An answer that began under a keyset may end in its grace."""
    claims = replace(CLAIMS, issued_unix_s=KEYSET.not_after_unix_s + labels.KEYSET_GRACE_S)
    assert verify_receipt(sign_receipt(claims, ED25519, ML_DSA_65), KEYSET) == claims


@pytest.mark.parametrize(
    "changes",
    [{"sampling": {"temperature": 0.7}}, {"model": ""}, {"outcome": "fine"}, {"chunk_count": -1}, {"seed": 1.0}],
)
def test_wrong_claims_are_never_signed(changes: dict[str, Any]) -> None:
    """A float, or a claim outside its range, is the enclave's own fault and gets no signature."""
    with pytest.raises(LocalStateError):
        sign_receipt(replace(CLAIMS, **changes), ED25519, ML_DSA_65)


# --- The exchange


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("keyset_digest", {"keyset": replace(KEYSET, not_after_unix_s=ISSUED_UNIX_S)}),
        ("suite", {"suite": "x25519/hkdf-sha256/aes-128-gcm"}),
        ("shape", {"shape": "none"}),
        ("enc_digest", {"enc_digest": b"\1" * 32}),
        ("statement_digest", {"statement_digest": b"\1" * 32}),
        ("client_asserted.nonce", {"nonce": b"\1" * 32}),
        ("client_asserted.policy", {"policy_digest": b"\1" * 32}),
        ("request_commitment", {"request_commitment": b"\1" * 32}),
        ("model", {"model": "another"}),
        ("status", {"status": 500}),
        ("response_commitment", {"response": TranscriptDigests(b"\1" * 32, CLAIMS.transcript_root, 7, 1)}),
        (
            "message_count",
            {"response": TranscriptDigests(CLAIMS.response_commitment, CLAIMS.transcript_root, 7, 2)},
        ),
        ("chunk_count", {"response": TranscriptDigests(CLAIMS.response_commitment, CLAIMS.transcript_root, 6, 1)}),
        ("transcript_root", {"response": TranscriptDigests(CLAIMS.response_commitment, b"\1" * 32, 7, 1)}),
    ],
)
def test_the_first_claim_of_another_exchange_is_named(part: str, changes: dict[str, Any]) -> None:
    """A receipt of another exchange is refused by the name of what differs."""
    with pytest.raises(ReceiptInvalid, match=part) as caught:
        check_receipt(CLAIMS, replace(EXPECTED, **changes))
    assert caught.value.part == part


@pytest.mark.parametrize("changes", [{"dialect": "ehbp"}, {"manifest_digest": bytes(32)}, {"simulated": False}])
def test_claims_of_another_enclave_are_named(changes: dict[str, Any]) -> None:
    """Dialect, manifest and SIMULATED flag are compared too."""
    with pytest.raises(ReceiptInvalid) as caught:
        check_receipt(replace(CLAIMS, **changes), EXPECTED)
    assert caught.value.part in changes


def test_a_client_that_asserted_gets_its_assertions_back() -> None:
    """A receipt that leaves out the nonce is not the receipt of a client that sent one."""
    with pytest.raises(ReceiptInvalid) as caught:
        check_receipt(replace(CLAIMS, client_asserted={"policy": EXPECTED.policy_digest}), EXPECTED)
    assert caught.value.part == "client_asserted.nonce"


def test_only_a_refusal_may_name_no_statement() -> None:
    """A refused request may have named a statement that the enclave never issued."""
    check_receipt(replace(CLAIMS, outcome="refused", statement_digest=None), EXPECTED)
    with pytest.raises(ReceiptInvalid):
        check_receipt(replace(CLAIMS, statement_digest=None), EXPECTED)


def test_any_model_fits_where_none_is_expected() -> None:
    """A client that takes any model compares none."""
    check_receipt(CLAIMS, replace(EXPECTED, model=None))
