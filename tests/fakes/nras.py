"""A SIMULATED Remote Attestation Service: signs detached EATs in the form of NVIDIA's, each part mendable."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from confide_attestation.nvidia.nras import ISSUER, SUBJECT
from confide_attestation.simulated.nvidia import Key, new_key, sign_raw

NOW = 1_780_000_000
NONCE = b"\x4e" * 32
KID = "nv-eat-kid-prod-simulated"
CHAIN_GOOD = {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: Key, kid: str = KID, **fields: str) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    x, y = (b64url(number.to_bytes(48, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-384", "kid": kid, "x": x, "y": y, **fields}


def base_claims() -> dict[str, Any]:
    return {"iss": ISSUER, "eat_nonce": NONCE.hex(), "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 3590}


def device_claims(kind: str = "gpu", ueid: str = "1", version: str = "3.0") -> dict[str, Any]:
    """Return what NVIDIA says of a good device, in claims of version 2.0 or 3.0."""
    prefix, rims = f"x-nvidia-{kind}-", ("driver", "vbios") if kind == "gpu" else ("bios",)
    report = f"{prefix}attestation-report-"
    claims = {**base_claims(), "ueid": ueid, "measres": "success", "secboot": True, "dbgstat": "disabled"}
    claims |= {f"{prefix}arch-check": True, f"{prefix}vbios-index-no-conflict": True}
    claims |= {f"{report}{name}": True for name in ("parsed", "nonce-match", "signature-verified")}
    names = ("fetched", "schema-validated", "signature-verified", "measurements-available")
    claims |= {f"{prefix}{rim}-rim-{name}": True for rim in rims for name in names}
    if version == "3.0":
        claims |= {f"{prefix}{rim}-rim-cert-chain": CHAIN_GOOD for rim in rims}
        return {**claims, f"{report}cert-chain": CHAIN_GOOD}
    claims |= {f"{prefix}{rim}-rim-cert-validated": True for rim in rims}
    return {**claims, f"{report}cert-chain-validated": True}


class Nras:
    """Signs tokens with one key; every part can be replaced."""

    def __init__(self) -> None:
        self.key = new_key()
        self.jwks = json.dumps({"keys": [jwk(self.key)]}).encode()

    def token(self, claims: Mapping[str, Any] | str, header: Mapping[str, Any] | None = None) -> str:
        """Sign claims, given as a mapping or as JSON text."""
        text = claims if isinstance(claims, str) else json.dumps(claims)
        head = json.dumps({"kid": KID, "alg": "ES384"} if header is None else header)
        signed = f"{b64url(head.encode())}.{b64url(text.encode())}"
        return f"{signed}.{b64url(sign_raw(self.key, signed.encode()))}"

    def overall(self, devices: Mapping[str, str], **replaced: Any) -> dict[str, Any]:
        digests = {
            name: ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]]
            for name, token in devices.items()
        }
        own = {"sub": SUBJECT, "x-nvidia-ver": "3.0", "x-nvidia-overall-att-result": True, "submods": digests}
        return {name: value for name, value in {**base_claims(), **own, **replaced}.items() if value is not None}

    def bundle(
        self,
        devices: Mapping[str, Mapping[str, Any]] | None = None,
        header: Mapping[str, Any] | None = None,
        **replaced: Any,
    ) -> bytes:
        """Sign a whole answer; `replaced` are claims of the overall token, None leaves one out."""
        tokens = {
            name: self.token(claims, header) for name, claims in (devices or {"GPU-0": device_claims()}).items()
        }
        return json.dumps([["JWT", self.token(self.overall(tokens, **replaced), header)], tokens]).encode()
