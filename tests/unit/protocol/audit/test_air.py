"""AIR v1 receipts of our own making: what the published vectors leave untried."""

from typing import Any

import cbor2
import pytest
from confide_protocol import cbor
from confide_protocol.audit.air import AirPolicy, check_air, verify_air
from confide_protocol.errors import ReceiptInvalid

from tests.fakes.receipts import ED25519, KEYSET

ISSUED_UNIX_S = 1_740_500_000
REGISTERS = {"measurement_type": "nitro-pcr", "pcr0": b"\1" * 48, "pcr1": b"\2" * 48, "pcr2": b"\3" * 48}
TREE: dict[Any, Any] = {
    1: "issuer.example",
    6: ISSUED_UNIX_S,
    7: b"\1" * 16,
    265: "https://spec.cyntrisec.com/air/v1",
    -65537: "model",
    -65538: "1",
    -65539: b"\1" * 32,
    -65540: b"\2" * 32,
    -65541: b"\3" * 32,
    -65542: b"\4" * 32,
    -65543: REGISTERS,
    -65544: "policy",
    -65545: 1,
    -65546: 2,
    -65547: 3,
    -65548: "mode",
}
HEADER = bytes.fromhex("a2012703183d")


def seal(payload: bytes, *, header: bytes = HEADER, unprotected: object = None, tag: bytes = b"\xd2") -> bytes:
    signature = ED25519.sign(cbor.encode(["Signature1", header, b"", payload]))
    return tag + cbor2.dumps([header, unprotected or {}, payload, signature])


def refusal(data: bytes) -> str:
    with pytest.raises(ReceiptInvalid) as caught:
        verify_air(data, KEYSET.receipt_ed25519)
    return caught.value.part


def test_a_receipt_with_every_optional_claim_is_read() -> None:
    """Nonce, model hash scheme and the fourth Nitro register may stand there."""
    registers = REGISTERS | {"pcr8": b"\4" * 48}
    tree = TREE | {10: b"n" * 8, -65549: "sha256-manifest", -65543: registers}
    claims = verify_air(seal(cbor.encode(tree)), KEYSET.receipt_ed25519)
    assert (claims.nonce, claims.model_hash_scheme, claims.platform) == (b"n" * 8, "sha256-manifest", "nitro-pcr")
    assert claims.measurements == registers


def test_any_order_of_keys_is_read() -> None:
    """The published vectors are not in deterministic order; their signatures hold all the same."""
    backwards = cbor2.dumps(dict(reversed(TREE.items())))
    assert verify_air(seal(backwards), KEYSET.receipt_ed25519).model_id == "model"


def test_the_parse_layer_refuses_other_envelopes() -> None:
    """No tag, another tag, unprotected parameters, trailing or truncated bytes are no AIR receipt."""
    payload = cbor.encode(TREE)
    good = seal(payload)
    assert verify_air(good, KEYSET.receipt_ed25519).issuer == "issuer.example"
    for data in (
        b"",
        good[1:],
        b"\xd8\x62" + good[1:],
        good + b"\0",
        good[:-1],
        seal(payload, unprotected={4: b"kid"}),
        b"\xd2" + cbor.encode([HEADER, {}, payload, bytes(63)]),
        b"\xd2" + cbor.encode([HEADER, {}, None, bytes(64)]),
        good + bytes(65_536),
    ):
        assert refusal(data) == "parse"


def test_the_parse_layer_refuses_open_or_ambiguous_maps() -> None:
    """Unknown, missing, repeated and non-integer keys, floats and indefinite lengths fail before the signature."""
    body = cbor.encode(TREE)[1:]
    for payload in (
        cbor.encode(TREE | {-65550: 1}),
        cbor.encode(TREE | {"extra": 1}),
        cbor.encode(TREE | {10: None}),
        cbor.encode(TREE | {-65549: None}),
        cbor.encode({k: v for k, v in TREE.items() if k != -65545}),
        b"\xb1" + body + b"\x01\x61x",
        b"\xbf" + body + b"\xff",
        cbor2.dumps(TREE | {6: 1.5}),
        cbor2.dumps({(True if k == 1 else k): v for k, v in TREE.items()}),
        cbor.encode([1]),
    ):
        assert refusal(seal(payload)) == "parse"
    assert refusal(seal(cbor.encode(TREE), header=cbor.encode({1: -8}))) == "parse"
    assert refusal(seal(cbor.encode(TREE), header=cbor.encode({1: -8, 3: 61, 4: b"kid"}))) == "parse"


@pytest.mark.parametrize("header", [{1: -7, 3: 61}, {1: -19, 3: 61}, {1: -8, 3: 60}, {1: "EdDSA", 3: 61}])
def test_the_alg_layer_refuses_other_headers(header: dict[int, Any]) -> None:
    """Alg is EdDSA and the content type that of a CWT, whatever the signature covers."""
    assert refusal(seal(cbor.encode(TREE), header=cbor.encode(header))) == "alg"


def test_the_signature_layer_refuses_a_changed_payload_or_key() -> None:
    """A signature holds for its payload and key alone; a key of another length is no key."""
    good, other = cbor2.loads(seal(cbor.encode(TREE))).value, cbor.encode(TREE | {-65545: 9})
    assert refusal(b"\xd2" + cbor2.dumps([good[0], {}, other, good[3]])) == "signature"
    for key in (KEYSET.usage_ed25519, b"short"):
        with pytest.raises(ReceiptInvalid) as caught:
            verify_air(seal(cbor.encode(TREE)), key)
        assert caught.value.part == "signature"


@pytest.mark.parametrize(
    "changes",
    [
        {265: "tag:confide,2026:receipt#1"},
        {1: b"issuer"},
        {6: -1},
        {6: True},
        {7: b"\1" * 15},
        {10: b"n" * 7},
        {10: b"n" * 65},
        {-65539: bytes(32)},
        {-65540: b"\1" * 31},
        {-65549: "sha1"},
        {-65543: b""},
        {-65543: REGISTERS | {"measurement_type": "sev-snp"}},
        {-65543: REGISTERS | {"measurement_type": []}},
        {-65543: REGISTERS | {"measurement_type": "tdx-mrtd-rtmr", "pcr8": b"\4" * 48}},
        {-65543: REGISTERS | {"pcr3": b"\4" * 48}},
        {-65543: REGISTERS | {"pcr0": b"\1" * 32}},
        {-65543: {"measurement_type": "nitro-pcr"}},
    ],
)
def test_the_claims_layer_refuses_wrong_values(changes: dict[int, Any]) -> None:
    """A signed claim of another type, length or range is refused."""
    assert refusal(seal(cbor.encode(TREE | changes))) == "claims"


def test_a_policy_demands_what_it_names() -> None:
    """Each demand fails by itself, a receipt from the future included; no demand, no failure."""
    claims = verify_air(seal(cbor.encode(TREE)), KEYSET.receipt_ed25519)
    check_air(claims, AirPolicy(), now_unix_s=0)
    check_air(
        claims, AirPolicy(model_hash=b"\1" * 32, platform="nitro-pcr", max_age_s=5), now_unix_s=ISSUED_UNIX_S + 5
    )
    for policy, now_unix_s in (
        (AirPolicy(nonce=b"n" * 8), ISSUED_UNIX_S),
        (AirPolicy(model_hash=b"\2" * 32), ISSUED_UNIX_S),
        (AirPolicy(platform="tdx-mrtd-rtmr"), ISSUED_UNIX_S),
        (AirPolicy(max_age_s=5), ISSUED_UNIX_S + 6),
        (AirPolicy(max_age_s=5), ISSUED_UNIX_S - 1),
    ):
        with pytest.raises(ReceiptInvalid) as caught:
            check_air(claims, policy, now_unix_s=now_unix_s)
        assert caught.value.part == "policy"
