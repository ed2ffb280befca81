"""Parse compact JWS and JWK sets in the one form that NVIDIA's service uses; makes no trust claim.

Source: RFC 7515, 7517, 7518 (ES384). Nothing beside `alg`, `kid` and `typ` may stand in a header, so that no
token chooses its own key or algorithm.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import verify_raw
from confide_attestation.nvidia.strict_json import parse_json

MAX_TOKEN_BYTES = 64 * 1024
MAX_JWKS_BYTES = 1 << 20
MAX_KEYS = 256
HEADER_FIELDS = frozenset({"alg", "kid", "typ"})
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_COORDINATE_BYTES = 48


@dataclass(frozen=True)
class Token:
    """A token as it lies: nothing is judged, and `claims` prove nothing until `is_signed_by` says so."""

    compact: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes

    def is_signed_by(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Check ES384."""
        return verify_raw(key, self.signature, self.signed)


def parse_token(compact: str) -> Token:
    """Parse a compact JWS whose header and payload are JSON objects. Raises: EvidenceMalformed."""
    parts = compact.split(".")
    if len(compact) > MAX_TOKEN_BYTES or len(parts) != 3:
        raise EvidenceMalformed("expected a token of three parts")
    header, claims = (parse_json(base64url(part), MAX_TOKEN_BYTES) for part in parts[:2])
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise EvidenceMalformed("a token's header or claims are no JSON object")
    return Token(compact, header, claims, ".".join(parts[:2]).encode(), base64url(parts[2]))


def parse_jwks(data: bytes) -> Mapping[str, ec.EllipticCurvePublicKey]:
    """Read a JWK set's P-384 keys by their `kid`; other keys are left out.

    Raises: EvidenceMalformed, also for a `kid` that is there twice. Does not check: whose keys these are.
    """
    tree = parse_json(data, MAX_JWKS_BYTES)
    keys = tree.get("keys") if isinstance(tree, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_KEYS:
        raise EvidenceMalformed(f"expected a JWK set of 1 to {MAX_KEYS} keys")
    found: dict[str, ec.EllipticCurvePublicKey] = {}
    seen: set[str] = set()
    for key in keys:
        kid = key.get("kid") if isinstance(key, dict) else None
        if not isinstance(kid, str) or not kid or kid in seen:
            raise EvidenceMalformed("a key of the JWK set has no kid, or another's")
        seen.add(kid)
        if (key.get("kty"), key.get("crv")) == ("EC", "P-384") and key.get("alg", "ES384") == "ES384":
            found[kid] = _key(key)
    return found


def _key(key: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    numbers = {}
    for name in ("x", "y"):
        text = key.get(name)
        data = base64url(text) if isinstance(text, str) else b""
        if len(data) != _COORDINATE_BYTES:
            raise EvidenceMalformed("a key of the JWK set has no point on P-384")
        numbers[name] = int.from_bytes(data, "big")
    try:
        return ec.EllipticCurvePublicNumbers(curve=ec.SECP384R1(), **numbers).public_key()
    except ValueError:
        raise EvidenceMalformed("a key of the JWK set has no point on P-384") from None


def base64url(text: str) -> bytes:
    """Decode unpadded base64url in its only canonical form. Raises: EvidenceMalformed."""
    if not _BASE64URL.fullmatch(text):
        raise EvidenceMalformed("not base64url")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise EvidenceMalformed("not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise EvidenceMalformed("not canonical base64url")
    return data
