"""Seal pages of a cache for memory that is not trusted: ChaCha20-Poly1305, RFC 8439.

A nonce must never come twice under a key. A page whose tag is not right is not opened: it is dropped, and what it
held is computed again.
"""

from confide_kernels.seal.naive import NONCE_BYTES, Sealed, seal, unseal

__all__ = ["NONCE_BYTES", "Sealed", "seal", "unseal"]
