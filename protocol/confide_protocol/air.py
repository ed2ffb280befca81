"""Read Attested Inference Receipts v1 (COSE_Sign1, Ed25519) that other enclaves issued. Ours are in `receipt`.

Source: cyntrisec/air-v1, air-v1.cddl of 2026-02-25. AIR hashes request and response bare, so that short ones
can be guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from confide_protocol import cbor
from confide_protocol.errors import ReceiptInvalid

MAX_AIR_BYTES = 64 * 1024
EAT_PROFILE_AIR: Final = "https://spec.cyntrisec.com/air/v1"
MODEL_HASH_SCHEMES = ("sha256-single", "sha256-concat", "sha256-manifest")
TAG_COSE_SIGN1: Final = b"\xd2"  # the encoding of tag 18
SIGNATURE_BYTES = 64
MEASUREMENT_BYTES = 48
PLATFORMS: Mapping[str, tuple[frozenset[str], ...]] = {
    "nitro-pcr": (frozenset({"pcr0", "pcr1", "pcr2"}), frozenset({"pcr0", "pcr1", "pcr2", "pcr8"})),
    "tdx-mrtd-rtmr": (frozenset({"pcr0", "pcr1", "pcr2"}),),
}


@dataclass(frozen=True)
class AirClaims:
    """The claims of an AIR v1 receipt. `measurements` are SHA-384 values by AIR's register names."""

    issuer: str
    issued_unix_s: int
    cti: bytes
    nonce: bytes | None
    model_id: str
    model_version: str
    model_hash: bytes
    model_hash_scheme: str | None
    request_hash: bytes
    response_hash: bytes
    attestation_doc_hash: bytes
    platform: str
    measurements: Mapping[str, bytes]
    policy_version: str
    sequence_number: int
    execution_time_ms: int
    memory_peak_mb: int
    security_mode: str


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
    if protected != cbor.encode({1: -8, 3: 61}):
        raise ReceiptInvalid("alg is not EdDSA over a CWT", part="alg")
    try:
        signed = cbor.encode(["Signature1", protected, b"", payload])
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except (InvalidSignature, ValueError):
        raise ReceiptInvalid("the signature does not verify", part="signature") from None
    return _claims(_decode_map(payload))


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
            and _is_known(set(_decode_map(payload)))
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


def _claims(tree: dict[int, Any]) -> AirClaims:
    _demand(tree[_PROFILE] == EAT_PROFILE_AIR, "eat_profile is not AIR v1")
    for name, label in _TEXTS.items():
        _demand(isinstance(tree[label], str), f"{name} is not text")
    for name, label in _UINTS.items():
        _demand(type(tree[label]) is int and 0 <= tree[label] < 1 << 64, f"{name} is not an unsigned integer")
    for name, label in _HASHES.items():
        _demand(_is_bytes(tree[label], 32, 32), f"{name} is not 32 bytes")
    nonce, scheme, registers = tree.get(_NONCE), tree.get(_SCHEME), tree[_MEASUREMENTS]
    _demand(any(tree[_HASHES["model_hash"]]), "model_hash is all zero")
    _demand(_is_bytes(tree[_CTI], 16, 16), "cti is not 16 bytes")
    _demand(_NONCE not in tree or _is_bytes(nonce, 8, 64), "eat_nonce is not 8 to 64 bytes")
    _demand(_SCHEME not in tree or scheme in MODEL_HASH_SCHEMES, "model_hash_scheme is unknown")
    _demand(isinstance(registers, dict), "enclave_measurements is not a map")
    platform = registers.get("measurement_type")
    measurements = {name: value for name, value in registers.items() if name != "measurement_type"}
    _demand(isinstance(platform, str) and platform in PLATFORMS, "measurement_type is unknown")
    _demand(measurements.keys() in PLATFORMS[platform], "enclave_measurements are not those of the platform")
    sound = all(_is_bytes(value, MEASUREMENT_BYTES, MEASUREMENT_BYTES) for value in measurements.values())
    _demand(sound, "a measurement is not 48 bytes")
    plain = {name: tree[label] for name, label in (_TEXTS | _UINTS | _HASHES).items()}
    return AirClaims(
        **plain,
        cti=tree[_CTI],
        nonce=nonce,
        model_hash_scheme=scheme,
        platform=platform,
        measurements=measurements,
    )


def _demand(holds: bool, detail: str) -> None:
    if not holds:
        raise ReceiptInvalid(detail, part="claims")


def _is_bytes(value: object, least: int, most: int) -> bool:
    return isinstance(value, bytes) and least <= len(value) <= most


def _is_known(labels: set[Any]) -> bool:
    return _REQUIRED <= labels <= _REQUIRED | {_NONCE, _SCHEME}


_CTI, _NONCE, _PROFILE, _MEASUREMENTS, _SCHEME = 7, 10, 265, -65543, -65549
_TEXTS = {
    "issuer": 1,
    "model_id": -65537,
    "model_version": -65538,
    "policy_version": -65544,
    "security_mode": -65548,
}
_UINTS = {"issued_unix_s": 6, "sequence_number": -65545, "execution_time_ms": -65546, "memory_peak_mb": -65547}
_HASHES = {"model_hash": -65539, "request_hash": -65540, "response_hash": -65541, "attestation_doc_hash": -65542}
_REQUIRED = {_CTI, _PROFILE, _MEASUREMENTS, *_TEXTS.values(), *_UINTS.values(), *_HASHES.values()}
