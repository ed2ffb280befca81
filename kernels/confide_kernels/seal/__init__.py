"""Seal pages of a cache for memory that is not trusted: ChaCha20-Poly1305, RFC 8439.

A nonce must never come twice under a key. A page whose tag is not right is not opened: it is dropped, and what it
held is computed again.
"""

from collections.abc import Sequence

from torch import Tensor

from confide_kernels.place import on_gpu
from confide_kernels.seal import naive
from confide_kernels.seal.naive import NONCE_BYTES, Sealed

__all__ = ["NONCE_BYTES", "Sealed", "seal", "unseal"]


def seal(key: bytes | bytearray, nonces: Sequence[bytes], pages: Tensor, contexts: Sequence[bytes]) -> Sealed:
    """Seal pages [n, bytes] uint8, each with its own nonce; a page's context must be the same when it is opened."""
    if on_gpu(pages):
        from confide_kernels.seal import triton

        return triton.seal(key, nonces, pages, contexts)
    return naive.seal(key, nonces, pages, contexts)


def unseal(key: bytes | bytearray, sealed: Sealed, contexts: Sequence[bytes], pages: Tensor) -> list[bool]:
    """Open into `pages` [n, bytes] uint8; return which were as they had been sealed. The others become zeros."""
    if on_gpu(pages):
        from confide_kernels.seal import triton

        return triton.unseal(key, sealed, contexts, pages)
    return naive.unseal(key, sealed, contexts, pages)
