"""Read Attested Inference Receipts v1 (COSE_Sign1, Ed25519) that other enclaves issued. Ours are in `receipt`.

Source: cyntrisec/air-v1, air-v1.cddl of 2026-02-25. AIR hashes request and response bare, so that short ones
can be guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from confide_protocol import cbor, cwt, fields, labels
from confide_protocol.errors import Malformed, ReceiptInvalid

MAX_AIR_BYTES = 64 * 1024
EAT_PROFILE_AIR: Final = "https://spec.cyntrisec.com/air/v1"
TAG_COSE_SIGN1: Final = b"\xd2"  # the encoding of tag 18
SIGNATURE_BYTES = 64
PROTECTED: Final = cbor.encode({1: -8, 3: 61})  # EdDSA over a CWT
OPTIONAL: Final = {10, -65549}
REGISTERS: Final[dict[str, tuple[set[str], ...]]] = {
    "nitro-pcr": ({"pcr0", "pcr1", "pcr2"}, {"pcr0", "pcr1", "pcr2", "pcr8"}),
    "tdx-mrtd-rtmr": ({"pcr0", "pcr1", "pcr2"},),
}

_is_text = fields.is_text(0, MAX_AIR_BYTES)
_is_uint = fields.is_int(0, 1 << 64)
_is_scheme = fields.is_one_of("sha256-single", "sha256-concat", "sha256-manifest")


def _is_model_hash(value: object) -> bool:
    return fields.is_digest(value) and value != bytes(labels.DIGEST_BYTES)


def _is_measurements(value: object) -> bool:
    registers = dict(value) if isinstance(value, dict) else {}
    platform = registers.pop("measurement_type", None)
    known = REGISTERS.get(platform, ()) if isinstance(platform, str) else ()
    return set(registers) in known and all(map(fields.is_bytes(48, 48), registers.values()))


@dataclass(frozen=True)
class AirClaims:
    """The claims of an AIR v1 receipt. `measurements` holds SHA-384 values and AIR's measurement_type."""

    issuer: Annotated[str, cwt.Claim(1, _is_text)]
    issued_unix_s: Annotated[int, cwt.Claim(6, _is_uint)]
    cti: Annotated[bytes, cwt.Claim(7, fields.is_bytes(16, 16))]
    nonce: Annotated[bytes | None, cwt.Claim(10, fields.is_absent_or(fields.is_bytes(8, 64)))]
    model_id: Annotated[str, cwt.Claim(-65537, _is_text)]
    model_version: Annotated[str, cwt.Claim(-65538, _is_text)]
    model_hash: Annotated[bytes, cwt.Claim(-65539, _is_model_hash)]
    request_hash: Annotated[bytes, cwt.Claim(-65540, fields.is_digest)]
    response_hash: Annotated[bytes, cwt.Claim(-65541, fields.is_digest)]
    attestation_doc_hash: Annotated[bytes, cwt.Claim(-65542, fields.is_digest)]
    measurements: Annotated[Mapping[str, str | bytes], cwt.Claim(-65543, _is_measurements)]
    policy_version: Annotated[str, cwt.Claim(-65544, _is_text)]
    sequence_number: Annotated[int, cwt.Claim(-65545, _is_uint)]
    execution_time_ms: Annotated[int, cwt.Claim(-65546, _is_uint)]
    memory_peak_mb: Annotated[int, cwt.Claim(-65547, _is_uint)]
    security_mode: Annotated[str, cwt.Claim(-65548, _is_text)]
    model_hash_scheme: Annotated[str | None, cwt.Claim(-65549, fields.is_absent_or(_is_scheme))]

    @property
    def platform(self) -> str:
        return str(self.measurements["measurement_type"])


@dataclass(frozen=True)
class AirPolicy:
    """What a reader demands of a receipt; None demands nothing."""

    nonce: bytes | None = None
    model_hash: bytes | None = None
    platform: str | None = None
    max_age_s: int | None = None


def verify_air(data: bytes, public_key: bytes) -> AirClaims:
    """Verify an AIR receipt under a raw Ed25519 public key.

    The order is fixed: parse, alg, signature, claims; `part` of the error names the layer.
    Maps may come in any key order: published AIR vectors do, though the schema asks for the deterministic one.
    Raises: ReceiptInvalid. Does not check: whose key it is, the attestation document, any policy (`check_air`).
    """
    protected, payload, signature = _parse_envelope(data)
    if protected != PROTECTED:
        raise ReceiptInvalid("alg is not EdDSA over a CWT", part="alg")
    try:
        signed = cbor.encode(["Signature1", protected, b"", payload])
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except (InvalidSignature, ValueError):
        raise ReceiptInvalid("the signature does not verify", part="signature") from None
    try:
        return AirClaims(**cwt.read_claims(_decode_map(payload), AirClaims, EAT_PROFILE_AIR))
    except Malformed as fault:
        raise ReceiptInvalid(f"a signed claim is wrong: {fault}", part="claims") from None


def check_air(claims: AirClaims, policy: AirPolicy, *, now_unix_s: int) -> None:
    """Check verified claims against a policy. Raises: ReceiptInvalid with part "policy", naming the claim."""
    for name in ("nonce", "model_hash", "platform"):
        if getattr(policy, name) not in (None, getattr(claims, name)):
            raise ReceiptInvalid(f"{name} is not what the policy expects", part="policy")
    if policy.max_age_s is not None and not 0 <= now_unix_s - claims.issued_unix_s <= policy.max_age_s:
        raise ReceiptInvalid("iat is outside the policy's age", part="policy")


def _parse_envelope(data: bytes) -> tuple[bytes, bytes, bytes]:
    match _decode(data.removeprefix(TAG_COSE_SIGN1)) if data.startswith(TAG_COSE_SIGN1) else None:
        case [bytes() as protected, dict() as unprotected, bytes() as payload, bytes() as signature] if (
            not unprotected
            and len(signature) == SIGNATURE_BYTES
            and set(_decode_map(protected)) == {1, 3}
            and _is_closed(_decode_map(payload))
        ):
            return protected, payload, signature
    raise ReceiptInvalid("not a tagged COSE_Sign1 over a closed map of claims", part="parse")


def _decode(data: bytes) -> Any:  # noqa: ANN401
    """Decode one item whose every length is definite and shortest, without duplicate keys, in any key order."""
    try:
        if len(data) <= MAX_AIR_BYTES:
            value = cbor2.loads(data)
            cbor.encode(value)  # plain values only: no float, no key but integers and text
            if cbor2.dumps(value) == data:
                return value
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, OverflowError, MemoryError, EOFError):
        pass
    raise ReceiptInvalid("not well-formed CBOR", part="parse")


def _decode_map(data: bytes) -> dict[Any, Any]:
    value = _decode(data)
    if not isinstance(value, dict):
        raise ReceiptInvalid("expected a CBOR map", part="parse")
    return value


def _is_closed(tree: dict[Any, Any]) -> bool:
    known = {claim.label for claim in cwt.claims_of(AirClaims).values()} | {cwt.EAT_PROFILE}
    return known - OPTIONAL <= set(tree) <= known and None not in tree.values()
