"""HPKE (RFC 9180), base mode with HKDF-SHA256: contexts that seal, open and export.

KEMs: MLKEM768-X25519 (0x647a; draft-connolly-cfrg-xwing-kem, draft-ietf-hpke-pq) and X25519 (0x0020).
`cryptography` has the primitives, but its own HPKE is single-shot: no sequence, no export.
Not here: PSK and authenticated modes, other KEMs and KDFs, erasure of secrets from Python's memory.
"""

import hashlib
import hmac
from collections.abc import Callable
from enum import IntEnum
from functools import cache, lru_cache
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from confide_protocol.errors import DecryptionFailed, LocalStateError, Malformed

HKDF_SHA256: Final = 0x0001
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_HASH_BYTES: Final = 32
_EXPAND_MAX_BYTES: Final = 255 * _HASH_BYTES
_X25519_BYTES: Final = 32
_ML_KEM_CIPHERTEXT_BYTES: Final = 1088
_ML_KEM_PUBLIC_BYTES: Final = 1184
_XWING_LABEL: Final = b"\\.//^\\"


class KemId(IntEnum):
    X25519 = 0x0020
    X_WING = 0x647A

    @property
    def enc_bytes(self) -> int:
        return _X25519_BYTES if self is KemId.X25519 else _ML_KEM_CIPHERTEXT_BYTES + _X25519_BYTES

    @property
    def public_bytes(self) -> int:
        return _X25519_BYTES if self is KemId.X25519 else _ML_KEM_PUBLIC_BYTES + _X25519_BYTES


class AeadId(IntEnum):
    AES_128_GCM = 0x0001
    AES_256_GCM = 0x0002
    CHACHA20_POLY1305 = 0x0003

    @property
    def key_bytes(self) -> int:
        return 16 if self is AeadId.AES_128_GCM else 32


class Suite(NamedTuple):
    """A KEM and an AEAD; the KDF is always HKDF-SHA256."""

    kem: KemId
    aead: AeadId

    @property
    def encoded(self) -> bytes:
        return b"".join(part.to_bytes(2, "big") for part in (self.kem, HKDF_SHA256, self.aead))

    @property
    def name(self) -> str:
        """The suite as policies and receipts write it."""
        kem = "x25519" if self.kem is KemId.X25519 else "mlkem768-x25519"
        return f"{kem}/hkdf-sha256/{self.aead.name.lower().replace('_', '-')}"


REQUIRED: Final = Suite(KemId.X_WING, AeadId.AES_256_GCM)


def suite_named(name: str) -> Suite:
    """Find a suite by its name. Raises: Malformed; an unknown suite is refused, never replaced."""
    for suite in (Suite(kem, aead) for kem in KemId for aead in AeadId):
        if suite.name == name:
            return suite
    raise Malformed("the suite is not known")


# --- HKDF (RFC 5869) and its labelled forms (RFC 9180 section 4)


def hkdf_extract(salt: bytes, key_material: bytes) -> bytes:
    return hmac.digest(salt, key_material, "sha256")


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """Expand to `length` bytes, at most 8,160."""
    out = block = b""
    for counter in range(1, -(-length // _HASH_BYTES) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        out += block
    return out[:length]


def _labeled_extract(suite_id: bytes, salt: bytes, label: bytes, key_material: bytes) -> bytes:
    return hkdf_extract(salt, b"HPKE-v1" + suite_id + label + key_material)


def _labeled_expand(suite_id: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return hkdf_expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info, length)


# --- KEMs (RFC 9180 section 4.1; X-Wing sections 5.2 to 5.4)

_DHKEM_ID: Final = b"KEM" + KemId.X25519.to_bytes(2, "big")


class PrivateKey:
    """A recipient's key pair. Held in memory only; nothing here writes it anywhere."""

    def __init__(self, kem: KemId, x25519: X25519PrivateKey, ml_kem: MLKEM768PrivateKey | None) -> None:
        self.kem = kem
        self._x25519, self._ml_kem = x25519, ml_kem
        self._x25519_public = x25519.public_key().public_bytes_raw()
        self.public = (ml_kem.public_key().public_bytes_raw() if ml_kem else b"") + self._x25519_public

    @classmethod
    def generate(cls, kem: KemId, seed: bytes) -> "PrivateKey":
        """Derive the key pair from 32 random bytes (X25519: DeriveKeyPair; X-Wing: its secret seed)."""
        _check_random(seed)
        if kem is KemId.X25519:
            key = _labeled_extract(_DHKEM_ID, b"", b"dkp_prk", seed)
            return cls.from_raw(_labeled_expand(_DHKEM_ID, key, b"sk", b"", _X25519_BYTES))
        expanded = hashlib.shake_256(seed).digest(96)
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        return cls(kem, x25519, MLKEM768PrivateKey.from_seed_bytes(expanded[:64]))

    @classmethod
    def from_raw(cls, secret: bytes) -> "PrivateKey":
        """Take an X25519 scalar as it is, without derivation."""
        _check_random(secret)
        return cls(KemId.X25519, X25519PrivateKey.from_private_bytes(secret), None)

    def __repr__(self) -> str:
        return f"<PrivateKey {self.kem.name}>"

    def decapsulate(self, enc: bytes) -> bytes:
        """Recover the 32-byte shared secret. Raises: DecryptionFailed."""
        if len(enc) != self.kem.enc_bytes:
            raise DecryptionFailed
        sent = enc[-_X25519_BYTES:]
        try:
            dh = self._x25519.exchange(X25519PublicKey.from_public_bytes(sent))
            if self._ml_kem is None:
                return _dhkem_secret(dh, sent, self._x25519_public)
            ml_kem_secret = self._ml_kem.decapsulate(enc[:_ML_KEM_CIPHERTEXT_BYTES])
        except ValueError:  # an X25519 point of low order
            raise DecryptionFailed from None
        return _xwing_secret(ml_kem_secret, dh, sent, self._x25519_public)


# Public keys of the few enclaves that one process talks to.
_ml_kem_public = lru_cache(maxsize=8)(MLKEM768PublicKey.from_public_bytes)


def encapsulate(kem: KemId, public_key: bytes, ephemeral: bytes) -> tuple[bytes, bytes]:
    """Make (shared secret, enc) for a public key; `ephemeral` is the X25519 scalar, 32 random bytes.

    X-Wing's ML-KEM half draws its randomness from OpenSSL: `cryptography` takes none from outside.
    Raises: Malformed for a key that is none, LocalStateError for all-zero randomness.
    """
    _check_random(ephemeral)
    if len(public_key) != kem.public_bytes:
        raise Malformed("the public key has the wrong length")
    secret = X25519PrivateKey.from_private_bytes(ephemeral)
    sent, theirs = secret.public_key().public_bytes_raw(), public_key[-_X25519_BYTES:]
    try:
        dh = secret.exchange(X25519PublicKey.from_public_bytes(theirs))
        if kem is KemId.X25519:
            return _dhkem_secret(dh, sent, theirs), sent
        ml_kem = _ml_kem_public(public_key[:_ML_KEM_PUBLIC_BYTES])
    except ValueError:
        raise Malformed("the public key is not valid") from None
    ml_kem_secret, ciphertext = ml_kem.encapsulate()
    return _xwing_secret(ml_kem_secret, dh, sent, theirs), ciphertext + sent


def _dhkem_secret(dh: bytes, sent: bytes, theirs: bytes) -> bytes:
    key = _labeled_extract(_DHKEM_ID, b"", b"eae_prk", dh)
    return _labeled_expand(_DHKEM_ID, key, b"shared_secret", sent + theirs, _HASH_BYTES)


def _xwing_secret(ml_kem_secret: bytes, dh: bytes, sent: bytes, theirs: bytes) -> bytes:
    return hashlib.sha3_256(ml_kem_secret + dh + sent + theirs + _XWING_LABEL).digest()


def _check_random(randomness: bytes) -> None:
    if len(randomness) != 32 or not any(randomness):
        raise LocalStateError("expected 32 random bytes; the random source may be broken")


# --- One direction of authenticated encryption (RFC 9180 section 5.2)


class _Sequence:
    """An AEAD key whose nonce is base XOR counter; the key object is made once per direction."""

    def __init__(self, aead: AeadId, key: bytes, base_nonce: bytes) -> None:
        self._aead = ChaCha20Poly1305(key) if aead is AeadId.CHACHA20_POLY1305 else AESGCM(key)
        self._base = int.from_bytes(base_nonce, "big")
        self._count = 0  # from 2**96 on, to_bytes would raise: no nonce ever comes back


class Sealer(_Sequence):
    """Seal messages in order."""

    def seal(self, aad: bytes, plaintext: bytes) -> bytes:
        nonce = (self._base ^ self._count).to_bytes(NONCE_BYTES, "big")
        self._count += 1
        return self._aead.encrypt(nonce, plaintext, aad)


class Opener(_Sequence):
    """Open messages in the order in which they were sealed."""

    def open(self, aad: bytes, ciphertext: bytes) -> bytes:
        """Raises: DecryptionFailed; the sequence then stays where it was."""
        nonce = (self._base ^ self._count).to_bytes(NONCE_BYTES, "big")
        try:
            plaintext = self._aead.decrypt(nonce, ciphertext, aad)
        except InvalidTag:
            raise DecryptionFailed from None
        self._count += 1
        return plaintext


# --- Key schedule and contexts (RFC 9180 section 5.1)


Export = Callable[[bytes, int], bytes]


@cache
def _no_psk_hash(suite_id: bytes) -> bytes:
    return _labeled_extract(suite_id, b"", b"psk_id_hash", b"")


def _key_schedule(suite: Suite, shared_secret: bytes, info: bytes) -> tuple[bytes, bytes, Export]:
    """Derive (key, base nonce, exporter). The exporter is a closure, so that no repr shows its secret."""
    suite_id = b"HPKE" + suite.encoded
    context = b"\0" + _no_psk_hash(suite_id) + _labeled_extract(suite_id, b"", b"info_hash", info)
    secret = _labeled_extract(suite_id, shared_secret, b"secret", b"")
    exporter_secret = _labeled_expand(suite_id, secret, b"exp", context, _HASH_BYTES)

    def export(context: bytes, length: int) -> bytes:
        if not 0 <= length <= _EXPAND_MAX_BYTES:
            raise LocalStateError("an export is at most 8,160 bytes")
        return _labeled_expand(suite_id, exporter_secret, b"sec", context, length)

    key = _labeled_expand(suite_id, secret, b"key", context, suite.aead.key_bytes)
    return key, _labeled_expand(suite_id, secret, b"base_nonce", context, NONCE_BYTES), export


class SenderContext(Sealer):
    """Seals and exports."""

    def __init__(self, suite: Suite, shared_secret: bytes, info: bytes) -> None:
        key, base_nonce, self.export = _key_schedule(suite, shared_secret, info)
        super().__init__(suite.aead, key, base_nonce)


class RecipientContext(Opener):
    """Opens and exports."""

    def __init__(self, suite: Suite, shared_secret: bytes, info: bytes) -> None:
        key, base_nonce, self.export = _key_schedule(suite, shared_secret, info)
        super().__init__(suite.aead, key, base_nonce)


def setup_base_sender(
    suite: Suite, public_key: bytes, info: bytes, ephemeral: bytes
) -> tuple[bytes, SenderContext]:
    """SetupBaseS: the `enc` to send, and the context. See `encapsulate` for randomness and errors."""
    shared_secret, enc = encapsulate(suite.kem, public_key, ephemeral)
    return enc, SenderContext(suite, shared_secret, info)


def setup_base_recipient(suite: Suite, private_key: PrivateKey, enc: bytes, info: bytes) -> RecipientContext:
    """SetupBaseR. Raises: DecryptionFailed, LocalStateError where key and suite differ in KEM.

    Whether the sender encapsulated to this key shows only when the first message opens.
    """
    if private_key.kem is not suite.kem:
        raise LocalStateError("the private key is of another KEM than the suite")
    return RecipientContext(suite, private_key.decapsulate(enc), info)
