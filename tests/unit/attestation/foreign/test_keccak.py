"""Keccak-256 against published digests; SHA-3's own permutation is the same as OpenSSL's."""

import hashlib

import pytest
from confide_attestation.foreign.keccak import keccak256


@pytest.mark.parametrize(
    ("text", "digest_hex"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"testing", "5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
    ],
)
def test_published_digests(text: bytes, digest_hex: str) -> None:
    """Those of Ethereum's documents."""
    assert keccak256(text).hex() == digest_hex


@pytest.mark.parametrize("size", [0, 1, 134, 135, 136, 137, 271, 272, 1000])
def test_permutation_is_that_of_sha3(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SHA-3's padding byte in place of Keccak's the digest is OpenSSL's, at every edge of a block."""
    from confide_attestation.foreign import keccak

    monkeypatch.setattr(keccak, "PADDING", 6)
    data = bytes(at % 251 for at in range(size))
    assert keccak256(data) == hashlib.sha3_256(data).digest()
