"""Each block format against ggml's own loops, written out one weight at a time, and against gguf-py's digests."""

import hashlib
import struct

import numpy as np
import pytest
from confide_enclave.engine.gguf_blocks import FORMATS

BLOCKS = 16
# SHA-256 of what gguf-py 0.19.0's `dequantize` gives for `random_blocks`, as little-endian float32.
GGUF_PY = {
    "F32": "d8497903a9fa5241e6ecab92dedf2c53bb6f3cc05f6eee2f09240f785fc3d2f6",
    "F16": "dcb3ba1e817b3a729adb6d3043daafce7d631c58ca938b52c0f50d70561b1506",
    "BF16": "87731af5c27f88552c9f4932f64cba4f2fd99eecad0318721c7dfc2c8ca74d20",
    "Q4_0": "f06222ae13a0881ab7d6ad21edd137cad70b91a5470ad42c42cebc3390f483d9",
    "Q4_1": "a8c7c378009e1e490284d57f6c10da3ae1052252681fcc75cac06d50ac1e9623",
    "Q5_0": "68fe8e6488a029f66ba83d8939befb3fdf9c32f8c24579e073b6bfa9a053da89",
    "Q5_1": "1d95c838207a665da3d8ef61043f95e4be13c273bb73f8cce522069a159ed12d",
    "Q8_0": "e0e0662d1b68920710e3b0501c46c09090a262fb60811159f8e8427791206cf1",
    "Q4_K": "c8a2d971847ed76ae2f7c1c2aed54d70483700ab0db9cac34a8caf2d98605d46",
    "Q5_K": "b7995346152ce66d319dab608490160f0b477eb76e95fa610eb8c1816b404bd9",
    "Q6_K": "0b8b1900f18005a860df1f79622c25603a8ccd7abc0129145ea708a934ab5ea6",
}  # fmt: skip


def random_blocks(kind: str) -> np.ndarray:
    """Random bytes, with bit 14 of each scale cleared, so that every one is finite."""
    rng = np.random.default_rng(FORMATS[kind].code)
    blocks = rng.integers(0, 256, (BLOCKS, FORMATS[kind].bytes), dtype=np.uint8)
    for high_byte in SCALE_HIGH_BYTES.get(kind, ()):
        blocks[:, high_byte] &= 0xBF
    return blocks


SCALE_HIGH_BYTES = {
    "F32": (3,), "F16": (1,), "BF16": (1,), "Q4_0": (1,), "Q4_1": (1, 3), "Q5_0": (1,), "Q5_1": (1, 3),
    "Q8_0": (1,), "Q4_K": (1, 3), "Q5_K": (1, 3), "Q6_K": (209,),
}  # fmt: skip


def half(block: bytes, at: int) -> float:
    return struct.unpack_from("<e", block, at)[0]


def scale_min(j: int, q: bytes) -> tuple[int, int]:
    """ggml's get_scale_min_k4."""
    if j < 4:
        return q[j] & 63, q[j + 4] & 63
    return q[j + 4] & 0xF | q[j - 4] >> 6 << 4, q[j + 4] >> 4 | q[j] >> 6 << 4


def q4(block: bytes, kind: str) -> list[float]:
    d, offset = half(block, 0), 4 if kind == "Q4_1" else 2
    m = half(block, 2) if kind == "Q4_1" else -8 * d
    q = block[offset:]
    return [d * (b & 15) + m for b in q] + [d * (b >> 4) + m for b in q]


def q5(block: bytes, kind: str) -> list[float]:
    d, at = half(block, 0), 4 if kind == "Q5_1" else 2
    m = half(block, 2) if kind == "Q5_1" else -16 * d
    (bits,) = struct.unpack_from("<I", block, at)
    q = block[at + 4 :]
    low = [d * (q[j] & 15 | (bits >> j & 1) << 4) + m for j in range(16)]
    return low + [d * (q[j] >> 4 | (bits >> (j + 16) & 1) << 4) + m for j in range(16)]


def k4_or_k5(block: bytes, kind: str) -> list[float]:
    d, least, scales = half(block, 0), half(block, 2), block[4:16]
    high, q = (block[16:48], block[48:]) if kind == "Q5_K" else (bytes(32), block[16:])
    out = []
    for group in range(8):
        scale, minimum = scale_min(group, scales)
        for j in range(32):
            nibble = q[group // 2 * 32 + j] >> 4 * (group % 2) & 15
            out.append(d * scale * (nibble | (high[j] >> group & 1) << 4) - least * minimum)
    return out


def k6(block: bytes, kind: str) -> list[float]:
    del kind
    low, high, d = block[:128], block[128:192], half(block, 208)
    scales = struct.unpack("16b", block[192:208])
    out = [0.0] * 256
    for part in range(2):
        ql, qh, sc, y = part * 64, part * 32, part * 8, part * 128
        for j in range(32):
            levels = [
                low[ql + j] & 15 | (high[qh + j] & 3) << 4,
                low[ql + j + 32] & 15 | (high[qh + j] >> 2 & 3) << 4,
                low[ql + j] >> 4 | (high[qh + j] >> 4 & 3) << 4,
                low[ql + j + 32] >> 4 | (high[qh + j] >> 6 & 3) << 4,
            ]
            for n, level in enumerate(levels):
                out[y + j + 32 * n] = d * scales[sc + j // 16 + 2 * n] * (level - 32)
    return out


def q8(block: bytes, kind: str) -> list[float]:
    del kind
    return [half(block, 0) * q for q in struct.unpack("32b", block[2:])]


def plain(block: bytes, kind: str) -> list[float]:
    wide = {"F32": block, "BF16": b"\0\0" + block}
    return [half(block, 0) if kind == "F16" else struct.unpack("<f", wide[kind])[0]]


REFERENCES = {
    "F32": plain, "F16": plain, "BF16": plain, "Q4_0": q4, "Q4_1": q4, "Q5_0": q5, "Q5_1": q5, "Q8_0": q8,
    "Q4_K": k4_or_k5, "Q5_K": k4_or_k5, "Q6_K": k6,
}  # fmt: skip


def test_every_format_is_tested() -> None:
    """A format without a reference is one that nobody vouches for."""
    assert REFERENCES.keys() == FORMATS.keys() == GGUF_PY.keys()


@pytest.mark.parametrize("kind", REFERENCES)
def test_weights(kind: str) -> None:
    """Each weight is what ggml computes, to rounding; in bits, what gguf-py computes."""
    blocks = random_blocks(kind)
    out = FORMATS[kind].decode(blocks.copy())
    assert out.dtype == np.float32
    assert out.shape == (BLOCKS, FORMATS[kind].weights)
    expected = np.array([REFERENCES[kind](block.tobytes(), kind) for block in blocks])
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-5)
    assert hashlib.sha256(out.astype("<f4").tobytes()).hexdigest() == GGUF_PY[kind]
