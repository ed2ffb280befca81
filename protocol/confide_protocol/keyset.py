"""The keyset statement and the manifest: what an enclave's evidence vouches for (SPEC 3)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confide_protocol import cbor, labels
from confide_protocol.errors import Malformed
from confide_protocol.fields import Test, check_fields, is_bool, is_bytes, is_digest, is_text, is_time

ED25519_PUBLIC_BYTES = 32
ML_DSA_65_PUBLIC_BYTES = 1952
MAX_OHTTP_KEYS_BYTES = 16 * 1024
MAX_NAME_CHARS = 256


@dataclass(frozen=True)
class Keyset:
    """One generation of the enclave's public keys. `encoded` is the exact statement; `digest` names it."""

    ohttp_keys: bytes
    receipt_ed25519: bytes
    receipt_ml_dsa_65: bytes
    usage_ed25519: bytes
    manifest_digest: bytes
    not_before_unix_s: int
    not_after_unix_s: int
    simulated: bool

    @property
    def encoded(self) -> bytes:
        return cbor.encode(
            {
                "purpose": labels.PURPOSE_KEYSET,
                "ohttp_keys": self.ohttp_keys,
                "receipt_keys": {"ed25519": self.receipt_ed25519, "ml_dsa_65": self.receipt_ml_dsa_65},
                "usage_key": self.usage_ed25519,
                "manifest_digest": self.manifest_digest,
                "not_before": self.not_before_unix_s,
                "not_after": self.not_after_unix_s,
                "simulated": self.simulated,
            }
        )

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.encoded).digest()


_KEYSET_FIELDS: dict[str, Test] = {
    "ohttp_keys": is_bytes(1, MAX_OHTTP_KEYS_BYTES),
    "receipt_keys": lambda value: isinstance(value, dict) and set(value) == set(_RECEIPT_KEYS),
    "usage_key": is_bytes(ED25519_PUBLIC_BYTES, ED25519_PUBLIC_BYTES),
    "manifest_digest": is_digest,
    "not_before": is_time,
    "not_after": is_time,
    "simulated": is_bool,
}
_RECEIPT_KEYS: dict[str, Test] = {
    "ed25519": is_bytes(ED25519_PUBLIC_BYTES, ED25519_PUBLIC_BYTES),
    "ml_dsa_65": is_bytes(ML_DSA_65_PUBLIC_BYTES, ML_DSA_65_PUBLIC_BYTES),
}


def parse_keyset(data: bytes) -> Keyset:
    """Parse a keyset statement; makes no trust claim.

    Raises: Malformed. Does not check: the times against a clock, the bytes of `ohttp_keys`.
    """
    tree = _statement(data, labels.PURPOSE_KEYSET, _KEYSET_FIELDS)
    check_fields(tree["receipt_keys"], _RECEIPT_KEYS)
    if not 0 < tree["not_after"] - tree["not_before"] <= labels.KEYSET_LIFETIME_MAX_S:
        raise Malformed("a keyset lives more than 24 h, or not at all")
    return Keyset(
        ohttp_keys=tree["ohttp_keys"],
        receipt_ed25519=tree["receipt_keys"]["ed25519"],
        receipt_ml_dsa_65=tree["receipt_keys"]["ml_dsa_65"],
        usage_ed25519=tree["usage_key"],
        manifest_digest=tree["manifest_digest"],
        not_before_unix_s=tree["not_before"],
        not_after_unix_s=tree["not_after"],
        simulated=tree["simulated"],
    )


@dataclass(frozen=True)
class Manifest:
    """What the enclave runs, pinned by a policy through its digest: a setting is public or it is ignored."""

    release: str
    model: str
    weights_digest: bytes
    tokenizer_digest: bytes
    engine: Mapping[str, str | int | bool]
    shapes: tuple[str, ...]
    platform: str

    @property
    def encoded(self) -> bytes:
        fields = {name: getattr(self, name) for name in _MANIFEST_FIELDS}
        return cbor.encode({"purpose": labels.PURPOSE_MANIFEST, **fields, "engine": dict(self.engine)})

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.encoded).digest()


def _is_engine(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(setting, (str, int, bool)) for name, setting in value.items()
    )


_MANIFEST_FIELDS: dict[str, Test] = {
    "release": is_text(1, MAX_NAME_CHARS),
    "model": is_text(1, MAX_NAME_CHARS),
    "weights_digest": is_digest,
    "tokenizer_digest": is_digest,
    "engine": _is_engine,
    "shapes": lambda value: isinstance(value, list) and bool(value) and all(isinstance(s, str) for s in value),
    "platform": is_text(1, MAX_NAME_CHARS),
}


def parse_manifest(data: bytes) -> Manifest:
    """Parse a manifest; makes no trust claim. Raises: Malformed."""
    tree = _statement(data, labels.PURPOSE_MANIFEST, _MANIFEST_FIELDS)
    return Manifest(**tree | {"shapes": tuple(tree["shapes"])})


def _statement(data: bytes, purpose: str, fields: Mapping[str, Test]) -> dict[str, Any]:
    """Decode a closed map of one purpose and return its other fields."""
    tree = cbor.decode(data)
    if not isinstance(tree, dict) or tree.pop("purpose", None) != purpose or set(tree) != set(fields):
        raise Malformed(f"not a {purpose} statement")
    check_fields(tree, fields)
    return tree
