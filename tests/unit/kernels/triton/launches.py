"""Launches of every kernel in the shapes of real models: what `ahead` compiles."""

import numpy as np
import torch
from confide_kernels.activation import triton as activation
from confide_kernels.attention import Fixed, Spans
from confide_kernels.attention import triton as attention
from confide_kernels.gemm import Product
from confide_kernels.gemm import triton as gemm
from confide_kernels.norm import triton as norm
from confide_kernels.quant import Rows
from confide_kernels.quant import triton as quant
from confide_kernels.rope import Cache, Heads, table
from confide_kernels.rope import triton as rope
from confide_kernels.sampling import triton as sampling
from confide_kernels.seal import triton as seal
from confide_kernels.wipe import triton as wipe

VOCABULARY = 32_000
HIDDEN, INNER, HEADS, KV_HEADS, WIDTH, CACHE_ROWS = 1024, 3072, 16, 8, 128, 512


def rows(n: int, width: int) -> Rows:
    return Rows(torch.zeros(n, width, dtype=torch.int8), torch.ones(n, 1))


def products(n: int, out: int = INNER) -> None:
    weight, scales = torch.zeros(out, HIDDEN, dtype=torch.int8), torch.ones(out)
    gemm.linear_w8a8(rows(n, HIDDEN), weight, scales)
    for dtype in (torch.float32, torch.bfloat16):
        gemm.linear_w8a16(torch.zeros(n, HIDDEN, dtype=dtype), weight, scales)
        groups = torch.ones(out, HIDDEN // 32, 2, dtype=torch.float16)
        gemm.linear_w4a16(
            torch.zeros(n, HIDDEN, dtype=dtype), weight[:, ::2].view(torch.uint8).contiguous(), groups
        )


def rotation() -> None:
    cache = Cache(
        torch.zeros(2, CACHE_ROWS, KV_HEADS, WIDTH, dtype=torch.int8), torch.zeros(2, KV_HEADS, CACHE_ROWS)
    )
    out = (HEADS + 2 * KV_HEADS) * WIDTH
    places = torch.zeros(4, dtype=torch.int64)
    for heads in (
        Heads(None, torch.ones(WIDTH), torch.ones(WIDTH), 1e-6),
        Heads(torch.ones(out), None, None, 1e-6),
    ):
        qkv = Product(torch.zeros(4, out), torch.ones(4, 1))
        rope.rotate_store(qkv, heads, table(64, WIDTH, 1e6), places, cache, places)
        for dtype in (torch.float32, torch.bfloat16):
            x, data = qkv.columns.to(dtype), cache.data.to(dtype)
            rope.rotate_store_floats(x, heads, table(64, WIDTH, 1e6), places, data, places)


def attend(width: int, heads: int = HEADS) -> None:
    cache = Cache(
        torch.zeros(2, CACHE_ROWS, KV_HEADS, width, dtype=torch.int8), torch.zeros(2, KV_HEADS, CACHE_ROWS)
    )
    spans = Spans.paged(np.array([[0, 1, 400, 0], [1, 63, 100, 25]]), np.arange(32, dtype=np.int32), 16)
    q = torch.zeros(64, heads, width, dtype=torch.int8)
    fixed = Fixed(64, 512, 64, 16, heads // KV_HEADS, torch.device("cpu"))
    fixed.update(Spans.paged(np.array([[0, 1, 400, 0]]), np.arange(25, dtype=np.int32), 16))
    for placed in (spans, fixed.placed):
        attention.attend_int8(q, torch.ones(64, heads), cache, placed)
        for dtype in (torch.float32, torch.bfloat16):
            attention.attend(q.to(dtype), *cache.data.to(dtype), placed)


def pages() -> None:
    data, tops = (
        torch.zeros(2, 2, CACHE_ROWS, KV_HEADS, WIDTH, dtype=torch.int8),
        torch.zeros(2, 2, KV_HEADS, CACHE_ROWS),
    )
    wipe.wipe(data, tops, torch.zeros(3, dtype=torch.int64), 16)
    seal.seal(bytes(32), [bytes(12)], torch.zeros(1, 1 << 16, dtype=torch.uint8), [b""])


def sample() -> None:
    one = torch.ones(2, dtype=torch.float64)
    sampling.sample(torch.zeros(2, 151_936), one, one.long(), one / 2, one * 0, one / 2)


COMMON = (
    lambda: quant.quantise(torch.zeros(4, HIDDEN)),
    lambda: norm.add_rms_norm_int8(torch.zeros(4, HIDDEN), Product(torch.zeros(4, HIDDEN), torch.ones(4, 1)), 1e-6),
    lambda: norm.add_rms_norm_int8(torch.zeros(4, HIDDEN), None, 1e-6),
    lambda: norm.rms_norm(torch.zeros(4, HIDDEN), torch.ones(HIDDEN), 1e-6, torch.bfloat16),
    lambda: activation.silu_mul_int8(Product(torch.zeros(4, 2 * INNER), torch.ones(4, 1))),
    lambda: activation.silu_mul(torch.zeros(4, 2 * INNER, dtype=torch.bfloat16)),
    rotation,
    lambda: products(1),
    lambda: products(256),
    lambda: products(2048),
    lambda: attend(128),
    sample,
    pages,
)
ALL = (
    *COMMON,
    # Other widths of heads, and more query heads to a key head than a program takes.
    lambda: attend(64),
    lambda: attend(256),
    lambda: attend(128, 32 * KV_HEADS),
    # What else there is of tiles: for more rows, and for as many columns as a vocabulary has.
    lambda: products(32),
    lambda: products(64),
    lambda: products(16, VOCABULARY),
    lambda: products(32, VOCABULARY),
    lambda: products(64, VOCABULARY),
)
