"""Receipts: COSE_Sign (RFC 9052 section 4.1) over CWT/EAT claims, signed with Ed25519 and ML-DSA-65 (SPEC 9)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from confide_protocol import cbor, cwt, fields, labels
from confide_protocol.errors import LocalStateError, Malformed, ReceiptInvalid
from confide_protocol.keyset import Keyset
from confide_protocol.transcript import TranscriptDigests

MAX_RECEIPT_BYTES = 16 * 1024
MAX_SAMPLING_ENTRIES = 64
TAG_COSE_SIGN: Final = b"\xd8\x62"  # the encoding of tag 98
ALG_EDDSA: Final = -8
ALG_ML_DSA_65: Final = -49
KID_BYTES = 8
HEADER_ALG: Final = 1
HEADER_CONTENT_TYPE: Final = 3
HEADER_KID: Final = 4
CONTENT_TYPE_CWT: Final = 61
_BODY_PROTECTED = cbor.encode({HEADER_CONTENT_TYPE: CONTENT_TYPE_CWT})

_is_name = fields.is_text(1, 256)
_is_setting = fields.is_int(-(1 << 63), 1 << 64)


def _is_sampling(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MAX_SAMPLING_ENTRIES
        and all(_is_name(name) and (_is_name(setting) or _is_setting(setting)) for name, setting in value.items())
    )


def _is_asserted(value: object) -> bool:
    return (
        isinstance(value, dict) and set(value) <= {"nonce", "policy"} and all(map(fields.is_digest, value.values()))
    )


@dataclass(frozen=True)
class ReceiptClaims:
    """What the enclave says of one exchange; `client_asserted` alone is what it was told.

    Floats of `sampling` are decimal text. Token counts are bucketed where the shape is.
    Where the request was refused for naming no statement of a live keyset, `statement_digest` is None; so it is
    wherever the dialect has no place for a statement.
    Label 6 is CWT's iat; those below -65536 are private to our eat_profile.
    """

    keyset_digest: Annotated[bytes, cwt.Claim(-66001, fields.is_digest)]
    statement_digest: Annotated[bytes | None, cwt.Claim(-66002, fields.is_absent_or(fields.is_digest))]
    manifest_digest: Annotated[bytes, cwt.Claim(-66003, fields.is_digest)]
    request_commitment: Annotated[bytes, cwt.Claim(-66004, fields.is_digest)]
    response_commitment: Annotated[bytes, cwt.Claim(-66005, fields.is_digest)]
    transcript_root: Annotated[bytes, cwt.Claim(-66006, fields.is_digest)]
    chunk_count: Annotated[int, cwt.Claim(-66007, fields.is_int(0, 1 << 32))]
    message_count: Annotated[int, cwt.Claim(-66008, fields.is_int(0, 1 << 32))]
    enc_digest: Annotated[bytes, cwt.Claim(-66009, fields.is_digest)]
    model: Annotated[str, cwt.Claim(-66010, _is_name)]
    outcome: Annotated[str, cwt.Claim(-66011, fields.is_one_of("complete", "refused", "aborted"))]
    status: Annotated[int, cwt.Claim(-66012, fields.is_int(200, 600))]
    sampling: Annotated[Mapping[str, str | int], cwt.Claim(-66013, _is_sampling)]
    seed: Annotated[int | None, cwt.Claim(-66014, fields.is_absent_or(_is_setting))]
    engine_mode: Annotated[str, cwt.Claim(-66015, _is_name)]
    suite: Annotated[str, cwt.Claim(-66017, _is_name)]
    shape: Annotated[str, cwt.Claim(-66018, _is_name)]
    prompt_tokens: Annotated[int, cwt.Claim(-66019, fields.is_int(0, 1 << 40))]
    completion_tokens: Annotated[int, cwt.Claim(-66020, fields.is_int(0, 1 << 40))]
    issued_unix_s: Annotated[int, cwt.Claim(6, fields.is_time)]
    simulated: Annotated[bool, cwt.Claim(-66021, fields.is_bool)]
    client_asserted: Annotated[Mapping[str, bytes], cwt.Claim(-66022, _is_asserted)]
    dialect: Annotated[str, cwt.Claim(-66016, _is_name)] = labels.DIALECT_CHUNKED_OHTTP

    @property
    def encoded(self) -> bytes:
        tree = {label: getattr(self, name) for name, (label, _) in cwt.claims_of(ReceiptClaims).items()}
        return cbor.encode(tree | {cwt.EAT_PROFILE: labels.EAT_PROFILE_RECEIPT})


def parse_claims(payload: bytes) -> ReceiptClaims:
    """Parse a receipt's payload; makes no trust claim. Raises: Malformed, naming the claim."""
    claims = ReceiptClaims(**cwt.read_claims(_claim_map(payload), ReceiptClaims, labels.EAT_PROFILE_RECEIPT))
    if claims.statement_digest is None and claims.outcome != "refused" and claims.dialect != labels.DIALECT_EHBP:
        raise Malformed("statement_digest is absent but nothing was refused")
    return claims


@dataclass(frozen=True)
class CoseSignature:
    """One of the signatures of a COSE_Sign. `protected` is the exact header that it covers."""

    alg: int
    kid: bytes
    protected: bytes
    signature: bytes


@dataclass(frozen=True)
class UnverifiedReceipt:
    """A well-formed COSE_Sign over a closed claim map: nobody has vouched for it yet."""

    payload: bytes
    signatures: tuple[CoseSignature, ...]


def parse_receipt(data: bytes) -> UnverifiedReceipt:
    """Parse a receipt's envelope and its map of claims, not their values; makes no trust claim.

    Raises: Malformed.
    """
    if not data.startswith(TAG_COSE_SIGN):
        raise Malformed("a receipt is a tagged COSE_Sign")
    message = cbor.decode(data[len(TAG_COSE_SIGN) :], max_bytes=MAX_RECEIPT_BYTES)
    protected, payload, signatures = _cose_parts(message)
    if protected != _BODY_PROTECTED or not isinstance(signatures, list):
        raise Malformed("a receipt's body header is not that of a CWT")
    _claim_map(payload)
    return UnverifiedReceipt(payload, tuple(_parse_signature(item) for item in signatures))


def sign_receipt(claims: ReceiptClaims, ed25519: Ed25519PrivateKey, ml_dsa_65: MLDSA65PrivateKey) -> bytes:
    """Sign claims with both keys, Ed25519 first. Takes about a millisecond: call it off the event loop.

    Raises: LocalStateError when the claims are not of their types and ranges.
    """
    try:
        payload = claims.encoded
        parse_claims(payload)
    except (Malformed, TypeError):
        raise LocalStateError("a receipt's claims are not of their types and ranges") from None
    signatures = []
    for alg, key in ((ALG_EDDSA, ed25519), (ALG_ML_DSA_65, ml_dsa_65)):
        protected = cbor.encode({HEADER_ALG: alg, HEADER_KID: key_id(key.public_key().public_bytes_raw())})
        signatures.append([protected, {}, key.sign(_to_be_signed(protected, payload))])
    return TAG_COSE_SIGN + cbor.encode([_BODY_PROTECTED, {}, payload, signatures])


def verify_receipt(data: bytes, keyset: Keyset) -> ReceiptClaims:
    """Verify both signatures under `keyset` and that the claims speak of it.

    The order is fixed: parse, alg (with kid), signature, claims; `part` of the error names the layer.
    Raises: ReceiptInvalid. Does not check: that `keyset` was attested, any exchange (`check_receipt`), the
    time against a clock.
    """
    try:
        receipt = parse_receipt(data)
    except Malformed as fault:
        raise ReceiptInvalid(f"the receipt cannot be read: {fault}", part="parse") from None
    expected = [(ALG_EDDSA, key_id(keyset.receipt_ed25519)), (ALG_ML_DSA_65, key_id(keyset.receipt_ml_dsa_65))]
    if [(each.alg, each.kid) for each in receipt.signatures] != expected:
        raise ReceiptInvalid("the receipt needs exactly EdDSA, then ML-DSA-65, by the keyset's keys", part="alg")
    try:
        keys = _public_keys(keyset.receipt_ed25519, keyset.receipt_ml_dsa_65)
        for key, each in zip(keys, receipt.signatures, strict=True):
            key.verify(each.signature, _to_be_signed(each.protected, receipt.payload))
    except (InvalidSignature, ValueError):
        raise ReceiptInvalid("a signature does not verify", part="signature") from None
    try:
        claims = parse_claims(receipt.payload)
    except Malformed as fault:
        raise ReceiptInvalid(f"a signed claim is wrong: {fault}", part="claims") from None
    for name, value in _keyset_claims(keyset).items():
        if getattr(claims, name) != value:
            raise ReceiptInvalid(f"{name} is not that of the keyset", part="claims")
    if not keyset.not_before_unix_s <= claims.issued_unix_s <= keyset.not_after_unix_s + labels.KEYSET_GRACE_S:
        raise ReceiptInvalid("issued_unix_s is outside the keyset's life", part="claims")
    return claims


@dataclass(frozen=True)
class ExpectedExchange:
    """What the client itself knows of an exchange. `model` is None where any model was acceptable."""

    keyset: Keyset
    statement_digest: bytes
    policy_digest: bytes
    nonce: bytes
    enc_digest: bytes
    request_commitment: bytes
    response: TranscriptDigests
    shape: str
    suite: str
    status: int
    model: str | None = None


def check_receipt(claims: ReceiptClaims, expected: ExpectedExchange) -> None:
    """Check verified claims against one exchange.

    A refusal may name no statement: the enclave names only those that it issued.
    Raises: ReceiptInvalid, `part` being the first claim that differs. Does not check: signatures, `outcome`
    (an aborted answer has a good receipt), sampling and token counts.
    """
    unnamed = claims.outcome == "refused" and claims.statement_digest is None
    wanted: dict[str, object] = {
        **_keyset_claims(expected.keyset),
        "dialect": labels.DIALECT_CHUNKED_OHTTP,
        "suite": expected.suite,
        "shape": expected.shape,
        "enc_digest": expected.enc_digest,
        "statement_digest": None if unnamed else expected.statement_digest,
        "client_asserted.nonce": expected.nonce,
        "client_asserted.policy": expected.policy_digest,
        "request_commitment": expected.request_commitment,
        "model": claims.model if expected.model is None else expected.model,
        "status": expected.status,
        "response_commitment": expected.response.commitment,
        "message_count": expected.response.message_count,
        "chunk_count": expected.response.chunk_count,
        "transcript_root": expected.response.root,
    }
    spoken = vars(claims) | {f"client_asserted.{name}": digest for name, digest in claims.client_asserted.items()}
    for name, value in wanted.items():
        if spoken.get(name) != value:
            raise ReceiptInvalid(f"the receipt speaks of another exchange: {name} differs", part=name)


def key_id(public_key: bytes) -> bytes:
    """Name a public key: the first 8 bytes of its SHA-256. A hint that must fit, never an identity."""
    return hashlib.sha256(public_key).digest()[:KID_BYTES]


@lru_cache(maxsize=8)
def _public_keys(ed25519: bytes, ml_dsa_65: bytes) -> tuple[Ed25519PublicKey | MLDSA65PublicKey, ...]:
    return Ed25519PublicKey.from_public_bytes(ed25519), MLDSA65PublicKey.from_public_bytes(ml_dsa_65)


def _keyset_claims(keyset: Keyset) -> dict[str, object]:
    return {
        "keyset_digest": keyset.digest,
        "manifest_digest": keyset.manifest_digest,
        "simulated": keyset.simulated,
    }


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    return cbor.encode(["Signature", _BODY_PROTECTED, protected, b"", payload])


def _cose_parts(value: Any) -> tuple[bytes, bytes, Any]:  # noqa: ANN401
    match value:
        case [bytes() as protected, dict() as unprotected, bytes() as payload, rest] if not unprotected:
            return protected, payload, rest
    raise Malformed("not a COSE_Sign with an empty unprotected header")


def _parse_signature(item: Any) -> CoseSignature:  # noqa: ANN401
    match item:
        case [bytes() as protected, dict() as unprotected, bytes() as signature] if not unprotected:
            header = cbor.decode(protected)
            if isinstance(header, dict) and set(header) == {HEADER_ALG, HEADER_KID}:
                alg, kid = header[HEADER_ALG], header[HEADER_KID]
                if type(alg) is int and isinstance(kid, bytes):
                    return CoseSignature(alg, kid, protected, signature)
    raise Malformed("a COSE_Signature holds alg and kid, both protected, and nothing else")


def _claim_map(payload: bytes) -> dict[int, Any]:
    tree = cbor.decode(payload, max_bytes=MAX_RECEIPT_BYTES)
    known = {claim.label for claim in cwt.claims_of(ReceiptClaims).values()} | {cwt.EAT_PROFILE}
    if not isinstance(tree, dict) or set(tree) != known:
        raise Malformed("a receipt's claims are not exactly the known ones")
    return tree
