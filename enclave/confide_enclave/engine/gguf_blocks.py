"""GGUF's block formats as float32: [blocks, bytes] in, [blocks, weights] out. Layouts: ggml-common.h of ggml."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Format:
    """`code` is the tensor type in a file; a block of `bytes` bytes holds `weights` weights."""

    code: int
    weights: int
    bytes: int
    decode: Callable[[U8], F32]


def _halves(column: U8) -> F32:
    return np.ascontiguousarray(column).view("<f2").astype(np.float32)


def _nibbles(packed: U8) -> U8:
    """[blocks, 16] bytes to [blocks, 32]: all low halves, then all high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _bits(packed: U8) -> U8:
    """[blocks, n] bytes to [blocks, 8 n] bits, lowest first."""
    return np.unpackbits(packed, axis=1, bitorder="little")


def _q4_0(blocks: U8) -> F32:
    return (_nibbles(blocks[:, 2:]).astype(np.float32) - np.float32(8)) * _halves(blocks[:, :2])


def _q4_1(blocks: U8) -> F32:
    weights = _nibbles(blocks[:, 4:]).astype(np.float32)
    weights *= _halves(blocks[:, :2])
    weights += _halves(blocks[:, 2:4])
    return weights


def _q5_0(blocks: U8) -> F32:
    levels = _nibbles(blocks[:, 6:]) | _bits(blocks[:, 2:6]) << 4
    return (levels.astype(np.float32) - np.float32(16)) * _halves(blocks[:, :2])


def _q5_1(blocks: U8) -> F32:
    weights = (_nibbles(blocks[:, 8:]) | _bits(blocks[:, 4:8]) << 4).astype(np.float32)
    weights *= _halves(blocks[:, :2])
    weights += _halves(blocks[:, 2:4])
    return weights


def _q8_0(blocks: U8) -> F32:
    return np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32) * _halves(blocks[:, :2])


def _bf16(blocks: U8) -> F32:
    return (blocks.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def _k_scales(blocks: U8) -> tuple[F32, F32]:
    """Return scale and minimum of the 8 groups of 32, [blocks, 8, 1] each, from a K block's first 16 bytes.

    Bytes 4 to 15 pack 6-bit numbers: four scales, four minima, and four bytes with the low halves of the others,
    whose top two bits lie above those of the first.
    """
    scale, minimum, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([scale & 63, rest & 15 | scale >> 6 << 4], axis=1)
    minima = np.concatenate([minimum & 63, rest >> 4 | minimum >> 6 << 4], axis=1)
    return (_halves(blocks[:, :2]) * scales)[:, :, None], (_halves(blocks[:, 2:4]) * minima)[:, :, None]


def _k_nibbles(packed: U8) -> U8:
    """[blocks, 128] bytes to [blocks, 8, 32]: of each 32 bytes the low halves, then the high ones."""
    groups = packed.reshape(-1, 4, 32)
    return np.stack([groups & 15, groups >> 4], axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: U8) -> F32:
    scales, minima = _k_scales(blocks)
    weights = _k_nibbles(blocks[:, 16:]) * scales
    weights -= minima
    return weights.reshape(-1, 256)


def _q5_k(blocks: U8) -> F32:
    scales, minima = _k_scales(blocks)
    # Byte j of the high bits holds weight j of all eight groups, the first group lowest.
    high = _bits(blocks[:, 16:48]).reshape(-1, 32, 8).swapaxes(1, 2)
    weights = (_k_nibbles(blocks[:, 48:]) | high << 4) * scales
    weights -= minima
    return weights.reshape(-1, 256)


def _q6_k(blocks: U8) -> F32:
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    levels = low.reshape(-1, 16, 16) | high.reshape(-1, 16, 16) << 4
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8) * _halves(blocks[:, 208:])
    weights = (levels.astype(np.float32) - np.float32(32)) * scales[:, :, None]
    return weights.reshape(-1, 256)


FORMATS: Final = {
    "F32": Format(0, 1, 4, lambda blocks: blocks.view("<f4").astype(np.float32)),
    "F16": Format(1, 1, 2, _halves),
    "Q4_0": Format(2, 32, 18, _q4_0),
    "Q4_1": Format(3, 32, 20, _q4_1),
    "Q5_0": Format(6, 32, 22, _q5_0),
    "Q5_1": Format(7, 32, 24, _q5_1),
    "Q8_0": Format(8, 32, 34, _q8_0),
    "Q4_K": Format(12, 256, 144, _q4_k),
    "Q5_K": Format(13, 256, 176, _q5_k),
    "Q6_K": Format(14, 256, 210, _q6_k),
    "BF16": Format(30, 1, 2, _bf16),
}
