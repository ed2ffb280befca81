"""The keyset statement and the manifest: what an enclave's evidence vouches for (SPEC 3)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from confide_protocol import cbor, labels
from confide_protocol.errors import Malformed
from confide_protocol.fields import Test, check_fields, is_bool, is_bytes, is_digest, is_text, is_time

ED25519_PUBLIC_BYTES = 32
ML_DSA_65_PUBLIC_BYTES = 1952
MAX_OHTTP_KEYS_BYTES = 16 * 1024
MAX_NAME_CHARS = 256
MAX_MODELS = 16


@dataclass(frozen=True)
class Keyset:
    """One generation of the enclave's public keys. `encoded` is the exact statement; `digest` names it.

    `ehbp_key` (X25519) is there only where the enclave answers EHBP as well.
    """

    ohttp_keys: bytes
    receipt_ed25519: bytes
    receipt_ml_dsa_65: bytes
    usage_ed25519: bytes
    manifest_digest: bytes
    not_before_unix_s: int
    not_after_unix_s: int
    simulated: bool
    ehbp_key: bytes | None = None

    @property
    def encoded(self) -> bytes:
        return cbor.encode(
            {
                **({} if self.ehbp_key is None else {"ehbp_key": self.ehbp_key}),
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

    @cached_property
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
    tree = _statement(data, labels.PURPOSE_KEYSET, _KEYSET_FIELDS, {"ehbp_key": is_bytes(32, 32)})
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
        ehbp_key=tree.get("ehbp_key"),
    )


@dataclass(frozen=True)
class ServedModel:
    """One model that answers, by the name that requests give it."""

    model: str
    weights_digest: bytes
    tokenizer_digest: bytes
    engine: Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Manifest(ServedModel):
    """What the enclave runs, pinned by a policy through its digest: a setting is public or it is ignored.

    It is its first model's entry itself; those beside it stand in `more_models`.
    """

    release: str
    shapes: tuple[str, ...]
    platform: str
    more_models: tuple[ServedModel, ...] = ()

    @property
    def models(self) -> tuple[ServedModel, ...]:
        return self, *self.more_models

    def find(self, model: str) -> ServedModel | None:
        return next((each for each in self.models if each.model == model), None)

    @property
    def encoded(self) -> bytes:
        fields = {**vars(self), "engine": dict(self.engine), "purpose": labels.PURPOSE_MANIFEST}
        more = [{**vars(each), "engine": dict(each.engine)} for each in fields.pop("more_models")]
        return cbor.encode(fields | ({"more_models": more} if more else {}))

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.encoded).digest()


def _is_engine(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(setting, (str, int, bool)) for name, setting in value.items()
    )


_MODEL_FIELDS: dict[str, Test] = {
    "model": is_text(1, MAX_NAME_CHARS),
    "weights_digest": is_digest,
    "tokenizer_digest": is_digest,
    "engine": _is_engine,
}


def _are_models(value: object) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) < MAX_MODELS
        and all(isinstance(each, dict) and set(each) == set(_MODEL_FIELDS) for each in value)
        and all(is_valid(each[name]) for each in value for name, is_valid in _MODEL_FIELDS.items())
    )


_MANIFEST_FIELDS: dict[str, Test] = _MODEL_FIELDS | {
    "release": is_text(1, MAX_NAME_CHARS),
    "shapes": lambda value: isinstance(value, list) and bool(value) and all(isinstance(s, str) for s in value),
    "platform": is_text(1, MAX_NAME_CHARS),
}


def parse_manifest(data: bytes) -> Manifest:
    """Parse a manifest; makes no trust claim. Raises: Malformed, for two models of one name too."""
    tree = _statement(data, labels.PURPOSE_MANIFEST, _MANIFEST_FIELDS, {"more_models": _are_models})
    more = tuple(ServedModel(**each) for each in tree.get("more_models", ()))
    manifest = Manifest(**tree | {"shapes": tuple(tree["shapes"]), "more_models": more})
    if len({each.model for each in manifest.models}) != len(manifest.models):
        raise Malformed("two models have one name")
    return manifest


def _statement(
    data: bytes, purpose: str, fields: Mapping[str, Test], optional: Mapping[str, Test] | None = None
) -> dict[str, Any]:
    """Decode a closed map of one purpose and return its other fields."""
    tree = cbor.decode(data)
    if not isinstance(tree, dict) or tree.pop("purpose", None) != purpose:
        raise Malformed(f"not a {purpose} statement")
    known = {**fields, **{name: test for name, test in (optional or {}).items() if name in tree}}
    if set(tree) != set(known):
        raise Malformed(f"not a {purpose} statement")
    check_fields(tree, known)
    return tree
