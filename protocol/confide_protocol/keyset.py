"""The keyset statement and the manifest: what an enclave's evidence vouches for (SPEC 3)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confide_protocol import cbor, labels
from confide_protocol.errors import Malformed

ED25519_PUBLIC_BYTES = 32
ML_DSA_65_PUBLIC_BYTES = 1952
MAX_OHTTP_KEYS_BYTES = 16 * 1024


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


def parse_keyset(data: bytes) -> Keyset:
    """Parse a keyset statement; makes no trust claim.

    Raises: Malformed. Does not check: the times against a clock, the bytes of `ohttp_keys`.
    """
    tree = _closed_map(
        cbor.decode(data),
        {
            "purpose",
            "ohttp_keys",
            "receipt_keys",
            "usage_key",
            "manifest_digest",
            "not_before",
            "not_after",
            "simulated",
        },
        labels.PURPOSE_KEYSET,
    )
    receipt_keys = tree["receipt_keys"]
    if not isinstance(receipt_keys, dict) or set(receipt_keys) != {"ed25519", "ml_dsa_65"}:
        raise Malformed("a keyset needs exactly the receipt keys ed25519 and ml_dsa_65")
    ohttp_keys = tree["ohttp_keys"]
    if not isinstance(ohttp_keys, bytes) or not 0 < len(ohttp_keys) <= MAX_OHTTP_KEYS_BYTES:
        raise Malformed("a keyset's ohttp_keys are absent or too large")
    if not isinstance(tree["simulated"], bool):
        raise Malformed("a keyset's simulated is not a boolean")
    keyset = Keyset(
        ohttp_keys=ohttp_keys,
        receipt_ed25519=_exact(receipt_keys["ed25519"], ED25519_PUBLIC_BYTES),
        receipt_ml_dsa_65=_exact(receipt_keys["ml_dsa_65"], ML_DSA_65_PUBLIC_BYTES),
        usage_ed25519=_exact(tree["usage_key"], ED25519_PUBLIC_BYTES),
        manifest_digest=_exact(tree["manifest_digest"], labels.DIGEST_BYTES),
        not_before_unix_s=_time(tree["not_before"]),
        not_after_unix_s=_time(tree["not_after"]),
        simulated=tree["simulated"],
    )
    if not 0 < keyset.not_after_unix_s - keyset.not_before_unix_s <= labels.KEYSET_LIFETIME_MAX_S:
        raise Malformed("a keyset lives more than 24 h, or not at all")
    return keyset


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
        return cbor.encode(
            {
                "purpose": labels.PURPOSE_MANIFEST,
                "release": self.release,
                "model": self.model,
                "weights_digest": self.weights_digest,
                "tokenizer_digest": self.tokenizer_digest,
                "engine": dict(self.engine),
                "shapes": list(self.shapes),
                "platform": self.platform,
            }
        )

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.encoded).digest()


def parse_manifest(data: bytes) -> Manifest:
    """Parse a manifest; makes no trust claim. Raises: Malformed."""
    tree = _closed_map(
        cbor.decode(data),
        {"purpose", "release", "model", "weights_digest", "tokenizer_digest", "engine", "shapes", "platform"},
        labels.PURPOSE_MANIFEST,
    )
    engine, shapes = tree["engine"], tree["shapes"]
    if not isinstance(engine, dict) or not all(
        isinstance(k, str) and isinstance(v, (str, int, bool)) for k, v in engine.items()
    ):
        raise Malformed("a manifest's engine settings are not a map of plain values")
    if not isinstance(shapes, list) or not shapes or not all(isinstance(s, str) for s in shapes):
        raise Malformed("a manifest's shapes are not a list of names")
    texts = [tree[name] for name in ("release", "model", "platform")]
    if not all(isinstance(text, str) and text for text in texts):
        raise Malformed("a manifest's release, model or platform is not text")
    return Manifest(
        release=tree["release"],
        model=tree["model"],
        weights_digest=_exact(tree["weights_digest"], labels.DIGEST_BYTES),
        tokenizer_digest=_exact(tree["tokenizer_digest"], labels.DIGEST_BYTES),
        engine=engine,
        shapes=tuple(shapes),
        platform=tree["platform"],
    )


def _closed_map(tree: Any, keys: set[str], purpose: str) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(tree, dict) or set(tree) != keys or tree["purpose"] != purpose:
        raise Malformed(f"not a {purpose} statement")
    return tree


def _exact(value: Any, length: int) -> bytes:  # noqa: ANN401
    if not isinstance(value, bytes) or len(value) != length:
        raise Malformed(f"expected {length} bytes")
    return value


def _time(value: Any) -> int:  # noqa: ANN401
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise Malformed("expected a time in Unix seconds")
    return value
