"""The same for GPUs: the key stream is made and added there, so that what leaves the GPU is sealed.

Tags are made and checked on the CPU, where sealed pages pass anyway. ChaCha20 is additions, rotations and
exclusive ors of words: no table is read at a place that depends on a secret. The key lies in the GPU's memory while
the kernel runs, and is zeroed after it, in stream order.
"""

import hmac
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.gpu import kernel, part
from confide_kernels.seal.naive import Sealed, check

# Blocks of 64 bytes that a program makes.
_BLOCKS: Final = 128
_BLOCK_BYTES: Final = 64


def seal(key: bytes | bytearray, nonces: Sequence[bytes], pages: Tensor, contexts: Sequence[bytes]) -> Sealed:
    check(key, nonces, pages, contexts)
    data = _add_stream(key, nonces, pages).cpu()
    parts = zip(nonces, contexts, data, strict=True)
    return Sealed(
        data, tuple(nonces), tuple(_tag(key, nonce, context, row.numpy()) for nonce, context, row in parts)
    )


def unseal(key: bytes | bytearray, sealed: Sealed, contexts: Sequence[bytes], pages: Tensor) -> list[bool]:
    check(key, sealed.nonces, sealed.data, contexts)
    parts = zip(*sealed, contexts, strict=True)
    good = [hmac.compare_digest(_tag(key, nonce, context, row.numpy()), tag) for row, nonce, tag, context in parts]
    # Nothing of a page whose tag is not right reaches the cipher.
    keep = torch.tensor(good, dtype=torch.bool)
    pages.zero_()
    if any(good):
        data = sealed.data[keep].to(pages.device)
        nonces = [nonce for nonce, own in zip(sealed.nonces, good, strict=True) if own]
        opened = _add_stream(key, nonces, data)
        pages[keep.to(pages.device)] = opened
        opened.zero_()
    return good


def _add_stream(key: bytes | bytearray, nonces: Sequence[bytes], pages: Tensor) -> Tensor:
    """Return pages [n, bytes] uint8 with ChaCha20's stream added, from block 1 on."""
    count, size = pages.shape
    words = -(-size // 4)
    given = pages.contiguous() if size % 4 == 0 else torch.nn.functional.pad(pages, (0, 4 * words - size))
    given, out = given.view(torch.int32), torch.empty(count, words, dtype=torch.int32, device=pages.device)
    secret = np.empty(8 + 3 * count, np.int32)
    secret[:8], secret[8:] = np.frombuffer(key, np.int32), np.frombuffer(b"".join(nonces), np.int32)
    state = torch.from_numpy(secret).to(pages.device)
    _chacha20[(count, -(-words // (16 * _BLOCKS)))](given, out, state, words, blocks=_BLOCKS)
    state.zero_()
    secret.fill(0)
    return out.view(torch.uint8)[:, :size].contiguous()


def _tag(key: bytes | bytearray, nonce: bytes, context: bytes, data: np.ndarray) -> bytes:
    """Return the tag of RFC 8439, section 2.8: its key is the first half of block 0."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    stream = Cipher(algorithms.ChaCha20(key, bytes(4) + nonce), None).encryptor()
    tag = Poly1305(stream.update(bytes(32)))
    tag.update(context + bytes(-len(context) % 16))
    tag.update(np.ascontiguousarray(data).data)
    tag.update(bytes(-data.size % 16) + len(context).to_bytes(8, "little") + data.size.to_bytes(8, "little"))
    return tag.finalize()


@part
def _turn(x: tl.tensor, by: tl.constexpr) -> tl.tensor:
    return (x << by) | (x >> (32 - by))


@part
def _quarter(
    a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    a += b
    d = _turn(d ^ a, 16)
    c += d
    b = _turn(b ^ c, 12)
    a += b
    d = _turn(d ^ a, 8)
    c += d
    b = _turn(b ^ c, 7)
    return a, b, c, d


@part
def _pair(a: tl.tensor, b: tl.tensor, blocks: tl.constexpr, width: tl.constexpr) -> tl.tensor:
    """Put words of blocks behind one another: [blocks, width] twice gives [blocks, 2 * width]."""
    return tl.reshape(tl.permute(tl.join(a, b), (0, 2, 1)), [blocks, 2 * width])


@kernel
def _chacha20(given: tl.tensor, out: tl.tensor, state: tl.tensor, words: tl.tensor, blocks: tl.constexpr) -> None:
    page, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * blocks
    none = tl.zeros([blocks], tl.uint32)
    c0, c1, c2, c3 = none + 0x61707865, none + 0x3320646E, none + 0x79622D32, none + 0x6B206574
    k0, k1 = none + tl.load(state).to(tl.uint32), none + tl.load(state + 1).to(tl.uint32)
    k2, k3 = none + tl.load(state + 2).to(tl.uint32), none + tl.load(state + 3).to(tl.uint32)
    k4, k5 = none + tl.load(state + 4).to(tl.uint32), none + tl.load(state + 5).to(tl.uint32)
    k6, k7 = none + tl.load(state + 6).to(tl.uint32), none + tl.load(state + 7).to(tl.uint32)
    nonce = state + 8 + 3 * page
    # Block 0 is the tag's key.
    n0 = (1 + first + tl.arange(0, blocks)).to(tl.uint32)
    n1, n2 = none + tl.load(nonce).to(tl.uint32), none + tl.load(nonce + 1).to(tl.uint32)
    n3 = none + tl.load(nonce + 2).to(tl.uint32)
    x0, x1, x2, x3, x4, x5, x6, x7 = c0, c1, c2, c3, k0, k1, k2, k3
    x8, x9, x10, x11, x12, x13, x14, x15 = k4, k5, k6, k7, n0, n1, n2, n3
    for _ in range(10):
        x0, x4, x8, x12 = _quarter(x0, x4, x8, x12)
        x1, x5, x9, x13 = _quarter(x1, x5, x9, x13)
        x2, x6, x10, x14 = _quarter(x2, x6, x10, x14)
        x3, x7, x11, x15 = _quarter(x3, x7, x11, x15)
        x0, x5, x10, x15 = _quarter(x0, x5, x10, x15)
        x1, x6, x11, x12 = _quarter(x1, x6, x11, x12)
        x2, x7, x8, x13 = _quarter(x2, x7, x8, x13)
        x3, x4, x9, x14 = _quarter(x3, x4, x9, x14)
    # Words side by side, so that a block's 64 bytes are stored together.
    a = _four(x0 + c0, x1 + c1, x2 + c2, x3 + c3, blocks)
    b = _four(x4 + k0, x5 + k1, x6 + k2, x7 + k3, blocks)
    c = _four(x8 + k4, x9 + k5, x10 + k6, x11 + k7, blocks)
    d = _four(x12 + n0, x13 + n1, x14 + n2, x15 + n3, blocks)
    stream = _pair(_pair(a, b, blocks, 4), _pair(c, d, blocks, 4), blocks, 8)
    j = (first + tl.arange(0, blocks))[:, None] * 16 + tl.arange(0, 16)[None, :]
    plain = tl.load(given + page * words + j, j < words, 0)
    tl.store(out + page * words + j, plain ^ stream.to(tl.int32, bitcast=True), j < words)


@part
def _four(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor, blocks: tl.constexpr) -> tl.tensor:
    left = tl.join(a, b)
    return _pair(left, tl.join(c, d), blocks, 2)
