"""The definition: `cryptography`'s, page by page."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from torch import Tensor

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16


class Sealed(NamedTuple):
    """Sealed pages, on the CPU. data: [n, bytes] uint8; nonces, tags: one each for every page."""

    data: Tensor
    nonces: tuple[bytes, ...]
    tags: tuple[bytes, ...]


def seal(key: bytes, nonces: Sequence[bytes], pages: Tensor, context: bytes) -> Sealed:
    """Seal pages [n, bytes] uint8, each with its own nonce; `context` must be the same when they are opened."""
    check(key, nonces, pages)
    cipher, pages = ChaCha20Poly1305(key), pages.cpu()
    data, tags = torch.empty_like(pages), []
    for page, nonce, to in zip(pages, nonces, data, strict=True):
        made = cipher.encrypt(nonce, page.numpy().tobytes(), context)
        to.copy_(torch.frombuffer(bytearray(made[:-TAG_BYTES]), dtype=torch.uint8))
        tags.append(made[-TAG_BYTES:])
    return Sealed(data, tuple(nonces), tuple(tags))


def unseal(key: bytes, sealed: Sealed, context: bytes, pages: Tensor) -> list[bool]:
    """Open into `pages` [n, bytes] uint8; return which were as they had been sealed. The others become zeros."""
    check(key, sealed.nonces, sealed.data)
    cipher, good = ChaCha20Poly1305(key), []
    for data, nonce, tag, to in zip(sealed.data, sealed.nonces, sealed.tags, pages, strict=True):
        try:
            plain = cipher.decrypt(nonce, data.numpy().tobytes() + tag, context)
        except InvalidTag:
            to.zero_()
            good.append(False)
        else:
            to.copy_(torch.frombuffer(bytearray(plain), dtype=torch.uint8))
            good.append(True)
    return good


def check(key: bytes, nonces: Sequence[bytes], pages: Tensor) -> None:
    """Raises: ValueError for what ChaCha20-Poly1305 is not of, and for a nonce that comes twice."""
    if len(key) != 32:
        raise ValueError("a key has 32 bytes")
    if any(len(nonce) != NONCE_BYTES for nonce in nonces) or len(nonces) != len(pages):
        raise ValueError(f"every page needs a nonce of {NONCE_BYTES} bytes")
    if len(set(nonces)) != len(nonces):
        raise ValueError("a nonce must never come twice under a key")
    if pages.dtype != torch.uint8 or pages.ndim != 2 or not pages.shape[1]:
        raise ValueError("pages are rows of bytes")
