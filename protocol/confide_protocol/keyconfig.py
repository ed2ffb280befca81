"""OHTTP key configurations (RFC 9458 section 3). Holds no cryptography, so the gateway may read them."""

from collections.abc import Sequence
from dataclasses import dataclass

from confide_protocol.errors import LocalStateError, Malformed, UnknownKey

# Only a known KEM says how long its public key is.
PUBLIC_KEY_BYTES = {0x0020: 32, 0x647A: 1216}


@dataclass(frozen=True)
class KeyConfig:
    """One public key and its (KDF, AEAD) pairs.

    For a KEM unknown here `symmetric` is empty and `public_key` is everything after the KEM id, unread.
    """

    key_id: int
    kem_id: int
    public_key: bytes
    symmetric: tuple[tuple[int, int], ...]


def encode_key_configs(configs: Sequence[KeyConfig]) -> bytes:
    """Encode the bytes of `application/ohttp-keys`: each configuration after its 16-bit length."""
    out = bytearray()
    for config in configs:
        encoded = _encode(config)
        out += len(encoded).to_bytes(2, "big") + encoded
    return bytes(out)


def parse_key_configs(data: bytes) -> tuple[KeyConfig, ...]:
    """Parse `application/ohttp-keys`; makes no trust claim.

    Raises: Malformed, also for an empty list or a key id that stands there twice.
    Does not check: that a public key is valid.
    """
    configs = []
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise Malformed("a key configuration is cut short")
        configs.append(_parse(data[at + 2 : end]))
        at = end
    if not configs or len({config.key_id for config in configs}) != len(configs):
        raise Malformed("the key configurations are none, or share a key id")
    return tuple(configs)


def choose(configs: Sequence[KeyConfig], kem_id: int, kdf_id: int, aead_id: int) -> KeyConfig:
    """Return the first configuration of this very suite: the caller chooses, never the server's order.

    Raises: UnknownKey.
    """
    for config in configs:
        if config.kem_id == kem_id and (kdf_id, aead_id) in config.symmetric:
            return config
    raise UnknownKey("the peer offers no key of the suite that is asked for")


def _encode(config: KeyConfig) -> bytes:
    head = config.key_id.to_bytes(1, "big") + config.kem_id.to_bytes(2, "big") + config.public_key
    if config.kem_id not in PUBLIC_KEY_BYTES:
        return head
    if len(config.public_key) != PUBLIC_KEY_BYTES[config.kem_id] or not config.symmetric:
        raise LocalStateError("a key configuration needs a whole public key and a symmetric suite")
    pairs = b"".join(part.to_bytes(2, "big") for pair in config.symmetric for part in pair)
    return head + len(pairs).to_bytes(2, "big") + pairs


def _parse(data: bytes) -> KeyConfig:
    if len(data) < 3:
        raise Malformed("a key configuration is cut short")
    kem_id = int.from_bytes(data[1:3], "big")
    size = PUBLIC_KEY_BYTES.get(kem_id)
    if size is None:
        return KeyConfig(data[0], kem_id, data[3:], ())
    public_key, length, pairs = data[3 : 3 + size], data[3 + size : 5 + size], data[5 + size :]
    if len(length) < 2 or int.from_bytes(length, "big") != len(pairs) or not pairs or len(pairs) % 4:
        raise Malformed("a key configuration's symmetric suites are not a list of pairs")
    words = [int.from_bytes(pairs[i : i + 2], "big") for i in range(0, len(pairs), 2)]
    return KeyConfig(data[0], kem_id, public_key, tuple(zip(words[::2], words[1::2], strict=True)))
