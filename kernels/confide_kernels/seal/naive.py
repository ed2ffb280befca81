"""The definition: `cryptography`'s, page by page. It is needed only where pages are sealed or opened."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16


class Sealed(NamedTuple):
    """Sealed pages, on the CPU. data: [n, bytes] uint8; nonces, tags: one each for every page."""

    data: Tensor
    nonces: tuple[bytes, ...]
    tags: tuple[bytes, ...]


def seal(key: bytes | bytearray, nonces: Sequence[bytes], pages: Tensor, contexts: Sequence[bytes]) -> Sealed:
    """Seal pages [n, bytes] uint8, each with its own nonce; a page's context must be the same when it is opened."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    check(key, nonces, pages, contexts)
    cipher, pages = ChaCha20Poly1305(key), pages.cpu().contiguous()
    data, tags, made = torch.empty_like(pages), [], bytearray(pages.shape[1] + TAG_BYTES)
    for page, nonce, context, to in zip(pages, nonces, contexts, data, strict=True):
        cipher.encrypt_into(nonce, page.numpy(), context, made)
        to.copy_(torch.frombuffer(made, dtype=torch.uint8)[:-TAG_BYTES])
        tags.append(bytes(made[-TAG_BYTES:]))
    return Sealed(data, tuple(nonces), tuple(tags))


def unseal(key: bytes | bytearray, sealed: Sealed, contexts: Sequence[bytes], pages: Tensor) -> list[bool]:
    """Open into `pages` [n, bytes] uint8; return which were as they had been sealed. The others become zeros."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    check(key, sealed.nonces, sealed.data, contexts)
    cipher, good = ChaCha20Poly1305(key), []
    opened = bytearray(pages.shape[1])
    for data, nonce, tag, context, to in zip(*sealed, contexts, pages, strict=True):
        try:
            cipher.decrypt_into(nonce, data.numpy().tobytes() + tag, context, opened)
        except InvalidTag:
            to.zero_()
            good.append(False)
        else:
            to.copy_(torch.frombuffer(opened, dtype=torch.uint8))
            good.append(True)
    opened[:] = bytes(len(opened))
    return good


def check(key: bytes | bytearray, nonces: Sequence[bytes], pages: Tensor, contexts: Sequence[bytes]) -> None:
    """Raises: ValueError for what ChaCha20-Poly1305 is not of, and for a nonce that comes twice."""
    if len(key) != 32:
        raise ValueError("a key has 32 bytes")
    if any(len(nonce) != NONCE_BYTES for nonce in nonces) or len(nonces) != len(pages):
        raise ValueError(f"every page needs a nonce of {NONCE_BYTES} bytes")
    if len(contexts) != len(pages):
        raise ValueError("every page needs a context")
    if len(set(nonces)) != len(nonces):
        raise ValueError("a nonce must never come twice under a key")
    if pages.dtype != torch.uint8 or pages.ndim != 2 or not pages.shape[1]:
        raise ValueError("pages are rows of bytes")
