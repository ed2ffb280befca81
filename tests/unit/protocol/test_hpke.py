"""HPKE against two other implementations, and everything that it must refuse."""

from typing import Any

import pytest
from confide_protocol import hpke
from confide_protocol.errors import DecryptionFailed, LocalStateError, Malformed
from confide_protocol.hpke import AeadId, KemId, PrivateKey, Suite
from cryptography.hazmat.primitives import hpke as pyca
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

SEED, EPHEMERAL, OTHER = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
INFO, AAD, TEXT = b"some info", b"some aad", b"some text"
SUITES = [Suite(kem, aead) for kem in KemId for aead in AeadId]
every_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
every_kem = pytest.mark.parametrize("kem", KemId)

PYCA_KEM = {KemId.X25519: pyca.KEM.X25519, KemId.X_WING: pyca.KEM.MLKEM768_X25519}
PYCA_AEAD = {
    AeadId.AES_128_GCM: pyca.AEAD.AES_128_GCM,
    AeadId.AES_256_GCM: pyca.AEAD.AES_256_GCM,
    AeadId.CHACHA20_POLY1305: pyca.AEAD.CHACHA20_POLY1305,
}


def pair(suite: Suite, info: bytes = INFO) -> tuple[hpke.SenderContext, hpke.RecipientContext]:
    key = PrivateKey.generate(suite.kem, SEED)
    enc, sender = hpke.setup_base_sender(suite, key.public, info, EPHEMERAL)
    return sender, hpke.setup_base_recipient(suite, key, enc, info)


def pyca_private_key(key: PrivateKey) -> Any:
    if key._ml_kem is None:
        return key._x25519
    return pyca.MLKEM768X25519PrivateKey(key._ml_kem, key._x25519)


def pyca_suite(suite: Suite) -> pyca.Suite:
    return pyca.Suite(PYCA_KEM[suite.kem], pyca.KDF.HKDF_SHA256, PYCA_AEAD[suite.aead])


@every_suite
def test_we_seal_and_cryptography_opens(suite: Suite) -> None:
    """The first message of our context opens with `cryptography`'s single-shot HPKE."""
    key = PrivateKey.generate(suite.kem, SEED)
    enc, sender = hpke.setup_base_sender(suite, key.public, INFO, EPHEMERAL)
    assert pyca_suite(suite).decrypt(enc + sender.seal(b"", TEXT), pyca_private_key(key), INFO) == TEXT


@every_suite
def test_cryptography_seals_and_we_open(suite: Suite) -> None:
    """What `cryptography` seals opens as the first message of our context."""
    key = PrivateKey.generate(suite.kem, SEED)
    sealed = pyca_suite(suite).encrypt(TEXT, pyca_private_key(key).public_key(), INFO)
    enc, ciphertext = sealed[: suite.kem.enc_bytes], sealed[suite.kem.enc_bytes :]
    assert hpke.setup_base_recipient(suite, key, enc, INFO).open(b"", ciphertext) == TEXT


@pytest.mark.parametrize("aead", AeadId)
def test_pyhpke_both_ways(aead: AeadId) -> None:
    """With X25519, sequences of messages and exports agree with `pyhpke` both ways."""
    suite, key = Suite(KemId.X25519, aead), PrivateKey.generate(KemId.X25519, SEED)
    foreign = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId(int(aead)))

    enc, sender = hpke.setup_base_sender(suite, key.public, INFO, EPHEMERAL)
    theirs = foreign.create_recipient_context(enc, KEMKey.from_pyca_cryptography_key(key._x25519), info=INFO)
    for turn in range(3):
        assert theirs.open(sender.seal(AAD, TEXT + bytes([turn])), aad=AAD) == TEXT + bytes([turn])
    assert theirs.export(b"context", 48) == sender.export(b"context", 48)

    public = KEMKey.from_pyca_cryptography_key(X25519PublicKey.from_public_bytes(key.public))
    enc, theirs_sending = foreign.create_sender_context(public, info=INFO)
    recipient = hpke.setup_base_recipient(suite, key, enc, INFO)
    for turn in range(3):
        assert recipient.open(AAD, theirs_sending.seal(TEXT + bytes([turn]), aad=AAD)) == TEXT + bytes([turn])
    assert theirs_sending.export(b"context", 48) == recipient.export(b"context", 48)


@every_suite
def test_messages_open_in_order_only(suite: Suite) -> None:
    """A message out of order is refused; a refusal leaves the sequence where it was."""
    sender, recipient = pair(suite)
    first, second = sender.seal(AAD, b"1"), sender.seal(AAD, b"2")
    with pytest.raises(DecryptionFailed):
        recipient.open(AAD, second)
    assert recipient.open(AAD, first) == b"1"
    with pytest.raises(DecryptionFailed):
        recipient.open(AAD, first)
    assert recipient.open(AAD, second) == b"2"


@every_suite
def test_a_changed_bit_is_refused(suite: Suite) -> None:
    """Any changed byte of ciphertext, another AAD and another info are refused alike."""
    sender, recipient = pair(suite)
    sealed = sender.seal(AAD, TEXT)
    for at in range(len(sealed)):
        with pytest.raises(DecryptionFailed):
            recipient.open(AAD, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
    for aad, ciphertext in ((b"", sealed), (AAD, sealed[:-1]), (AAD, b"")):
        with pytest.raises(DecryptionFailed):
            recipient.open(aad, ciphertext)
    _, other = pair(suite, b"another info")
    with pytest.raises(DecryptionFailed):
        other.open(AAD, sealed)


@every_kem
def test_another_key_opens_nothing(kem: KemId) -> None:
    """A message to one key does not open with another."""
    suite = Suite(kem, AeadId.AES_256_GCM)
    enc, sender = hpke.setup_base_sender(suite, PrivateKey.generate(kem, SEED).public, INFO, EPHEMERAL)
    recipient = hpke.setup_base_recipient(suite, PrivateKey.generate(kem, OTHER), enc, INFO)
    with pytest.raises(DecryptionFailed):
        recipient.open(AAD, sender.seal(AAD, TEXT))


@every_kem
def test_wrong_lengths_are_refused(kem: KemId) -> None:
    """A public key or enc that is one byte off, or absent, is refused before any use."""
    key = PrivateKey.generate(kem, SEED)
    enc, _ = hpke.setup_base_sender(Suite(kem, AeadId.AES_256_GCM), key.public, INFO, EPHEMERAL)
    assert (len(key.public), len(enc)) == (kem.public_bytes, kem.enc_bytes)
    for wrong in (b"", key.public[:-1], key.public + b"\0"):
        with pytest.raises(Malformed):
            hpke.encapsulate(kem, wrong, EPHEMERAL)
    for wrong in (b"", enc[:-1], enc + b"\0"):
        with pytest.raises(DecryptionFailed):
            key.decapsulate(wrong)


@every_kem
@pytest.mark.parametrize("point", ["00" * 32, "01" + "00" * 31])
def test_points_of_low_order_are_refused(kem: KemId, point: str) -> None:
    """An X25519 half that forces a known shared secret is refused on both sides."""
    key = PrivateKey.generate(kem, SEED)
    with pytest.raises(Malformed):
        hpke.encapsulate(kem, key.public[:-32] + bytes.fromhex(point), EPHEMERAL)
    with pytest.raises(DecryptionFailed):
        key.decapsulate(bytes(kem.enc_bytes - 32) + bytes.fromhex(point))


def test_an_ml_kem_key_out_of_range_is_refused() -> None:
    """ML-KEM's own check of the encapsulation key (FIPS 203 section 7.2) is not skipped."""
    key = PrivateKey.generate(KemId.X_WING, SEED)
    with pytest.raises(Malformed):
        hpke.encapsulate(KemId.X_WING, b"\xff" * 1184 + key.public[-32:], EPHEMERAL)


@every_kem
@pytest.mark.parametrize("randomness", [bytes(32), b"", b"\x22" * 31, b"\x22" * 33])
def test_broken_randomness_is_refused(kem: KemId, randomness: bytes) -> None:
    """All-zero or short randomness makes neither a key nor a ciphertext."""
    with pytest.raises(LocalStateError):
        PrivateKey.generate(kem, randomness)
    with pytest.raises(LocalStateError):
        hpke.encapsulate(kem, PrivateKey.generate(kem, SEED).public, randomness)
    with pytest.raises(LocalStateError):
        PrivateKey.from_raw(randomness)


def test_xwing_encapsulation_is_fresh_each_time() -> None:
    """Even with repeated caller randomness the ML-KEM half differs."""
    public = PrivateKey.generate(KemId.X_WING, SEED).public
    assert hpke.encapsulate(KemId.X_WING, public, EPHEMERAL) != hpke.encapsulate(KemId.X_WING, public, EPHEMERAL)


def test_a_key_serves_its_own_kem_only() -> None:
    """An X25519 key under an X-Wing suite is a misuse."""
    with pytest.raises(LocalStateError):
        hpke.setup_base_recipient(hpke.REQUIRED, PrivateKey.generate(KemId.X25519, SEED), bytes(1120), INFO)


def test_exports() -> None:
    """Both sides export the same; context, length and suite separate; lengths have a limit."""
    sender, recipient = pair(hpke.REQUIRED)
    assert sender.export(b"a", 32) == recipient.export(b"a", 32) != sender.export(b"b", 32)
    assert sender.export(b"a", 64)[:32] != sender.export(b"a", 32)
    assert len(sender.export(b"a", 8160)) == 8160
    for length in (-1, 8161, 1 << 16):
        with pytest.raises(LocalStateError):
            sender.export(b"a", length)


def test_no_repr_shows_a_secret() -> None:
    """Keys and contexts print no byte of what they hold."""
    key = PrivateKey.generate(KemId.X_WING, SEED)
    sender, recipient = pair(hpke.REQUIRED)
    assert repr(key) == "<PrivateKey X_WING>"
    for thing in (key, sender, recipient, sender.export):
        assert "x11" not in repr(thing)
        assert "b'" not in repr(thing)


@every_suite
def test_suites_have_names(suite: Suite) -> None:
    """A suite is found by the name that it prints."""
    assert hpke.suite_named(suite.name) == suite


@pytest.mark.parametrize(
    "name", ["", "x25519", "MLKEM768-X25519/hkdf-sha256/aes-256-gcm", "x25519/hkdf-sha256/null"]
)
def test_unknown_suites_are_refused(name: str) -> None:
    """No other spelling names a suite."""
    assert hpke.REQUIRED.name == "mlkem768-x25519/hkdf-sha256/aes-256-gcm"
    with pytest.raises(Malformed):
        hpke.suite_named(name)
