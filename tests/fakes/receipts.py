"""A keyset with known receipt keys, and the claims of one good exchange under it."""

from dataclasses import replace
from typing import Any

from confide_protocol import cbor, labels
from confide_protocol.keyset import Keyset
from confide_protocol.receipt import ExpectedExchange, ReceiptClaims, key_id
from confide_protocol.transcript import TranscriptDigests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

ED25519 = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
ML_DSA_65 = MLDSA65PrivateKey.from_seed_bytes(b"\2" * 32)
SUITE = "mlkem768-x25519/hkdf-sha256/aes-256-gcm"
ISSUED_UNIX_S = 1_790_000_000

KEYSET = Keyset(
    ohttp_keys=b"\0\1k",
    receipt_ed25519=ED25519.public_key().public_bytes_raw(),
    receipt_ml_dsa_65=ML_DSA_65.public_key().public_bytes_raw(),
    usage_ed25519=b"\3" * 32,
    manifest_digest=b"\4" * 32,
    not_before_unix_s=ISSUED_UNIX_S - 3600,
    not_after_unix_s=ISSUED_UNIX_S + 3600,
    simulated=True,
)

CLAIMS = ReceiptClaims(
    keyset_digest=KEYSET.digest,
    statement_digest=b"\5" * 32,
    manifest_digest=KEYSET.manifest_digest,
    request_commitment=b"\6" * 32,
    response_commitment=b"\7" * 32,
    transcript_root=b"\x08" * 32,
    chunk_count=7,
    message_count=1,
    enc_digest=b"\x09" * 32,
    model="smollm2-135m-instruct",
    outcome="complete",
    status=200,
    sampling={"temperature": "0.7", "top_p": "1", "max_tokens": 64},
    seed=None,
    engine_mode="torch-cpu-f32",
    suite=SUITE,
    shape=labels.SHAPE_BUCKETED,
    prompt_tokens=32,
    completion_tokens=8,
    issued_unix_s=ISSUED_UNIX_S,
    simulated=True,
    client_asserted={"policy": b"\x0a" * 32, "nonce": b"\x0b" * 32},
)

EXPECTED = ExpectedExchange(
    keyset=KEYSET,
    statement_digest=CLAIMS.statement_digest or b"",
    policy_digest=b"\x0a" * 32,
    nonce=b"\x0b" * 32,
    enc_digest=CLAIMS.enc_digest,
    request_commitment=CLAIMS.request_commitment,
    response=TranscriptDigests(CLAIMS.response_commitment, CLAIMS.transcript_root, 7, 1),
    shape=CLAIMS.shape,
    suite=SUITE,
    status=200,
    model=CLAIMS.model,
)


def claim_tree(**changes: Any) -> dict[int, Any]:
    """Return the claims as the map of a payload, to be made wrong by hand."""
    tree: dict[int, Any] = cbor.decode(replace(CLAIMS, **changes).encoded)
    return tree


def sign_payload(
    payload: bytes,
    *,
    headers: tuple[dict[int, Any], ...] | None = None,
    unprotected: tuple[dict[Any, Any], ...] = ({}, {}, {}),
    body: dict[int, Any] | None = None,
) -> list[Any]:
    """Sign any payload under any headers, as a COSE_Sign list without its tag: good unless told otherwise."""
    body_protected = cbor.encode({3: 61} if body is None else body)
    ours = ({1: -8, 4: key_id(KEYSET.receipt_ed25519)}, {1: -49, 4: key_id(KEYSET.receipt_ml_dsa_65)})
    signatures = []
    for key, header, free in zip((ED25519, ML_DSA_65), headers or ours, unprotected[1:], strict=True):
        protected = cbor.encode(header)
        signed = cbor.encode(["Signature", body_protected, protected, b"", payload])
        signatures.append([protected, free, key.sign(signed)])
    return [body_protected, unprotected[0], payload, signatures]


def tagged(message: list[Any], tag: bytes = b"\xd8\x62") -> bytes:
    return tag + cbor.encode(message)
