"""The same in one pass over each row, for processors."""

import math

import numpy as np
from torch import Tensor

from confide_kernels.gemm.naive import Product
from confide_kernels.jit import F32, I8, I64, empty, kernel, part
from confide_kernels.quant.compiled import SIGNED, round_row
from confide_kernels.rope.naive import Cache, Heads

_NOTHING = np.empty(0, np.float32)


def rotate_store(
    qkv: Product, heads: Heads, turns: Tensor, positions: Tensor, cache: Cache, rows: Tensor
) -> tuple[Tensor, Tensor]:
    n, (_, _, kv_heads, head_dim) = len(qkv.columns), cache.data.shape
    queries = qkv.columns.shape[1] // head_dim - 2 * kv_heads
    levels, tops = empty((n, queries, head_dim), np.int8), empty((n, queries), np.float32)
    parts = (heads.bias, heads.q_norm, heads.k_norm)
    bias, q_norm, k_norm = (_NOTHING if each is None else each.numpy() for each in parts)
    _rotate_store(
        qkv.columns.numpy(),
        qkv.tops.numpy(),
        bias,
        q_norm,
        k_norm,
        math.sqrt(heads.epsilon * head_dim),
        turns.numpy(),
        positions.numpy(),
        rows.numpy(),
        cache.data.numpy(),
        cache.tops.numpy(),
        levels[0],
        tops[0],
    )
    return levels[1], tops[1]


@part
def _norm(row: F32, weight: F32, floor: float) -> None:
    """Divide a head's row by its root mean square, in 2^20 levels, whose squares add up exactly in float64."""
    width = len(row)
    top = np.float32(1e-30)
    for j in range(width):
        magnitude = abs(row[j])
        top = top if magnitude <= top else magnitude
    per_unit = 2.0**20 / np.float64(top)
    squares = 0.0
    for j in range(width):
        level = np.rint(np.float64(row[j]) * per_unit)
        squares += level * level
    least = per_unit * floor
    scale = 1.0 / math.sqrt(squares + least * least) * math.sqrt(np.float64(width))
    for j in range(width):
        row[j] = np.float32(np.rint(np.float64(row[j]) * per_unit) * scale * np.float64(weight[j]))


@kernel(
    "float32[:, ::1]",
    "float32[:, ::1]",
    "float32[::1]",
    "float32[::1]",
    "float32[::1]",
    "float64",
    "float32[:, :, ::1]",
    "int64[::1]",
    "int64[::1]",
    "int8[:, :, :, ::1]",
    "float32[:, :, ::1]",
    "int8[:, :, ::1]",
    "float32[:, ::1]",
)
def _rotate_store(
    columns: F32,
    row_tops: F32,
    bias: F32,
    q_norm: F32,
    k_norm: F32,
    floor: float,
    turns: F32,
    positions: I64,
    rows: I64,
    kept: I8,
    kept_tops: F32,
    levels: I8,
    tops: F32,
) -> None:
    n, queries, width = levels.shape
    kv_heads, half = kept.shape[2], width // 2
    if len(positions) != n or len(rows) != n:
        raise ValueError("each row has one position and one place in the cache")
    if n and not (0 <= positions.min() <= positions.max() < len(turns)):
        raise IndexError("a position is outside the table")
    if n and not (0 <= rows.min() <= rows.max() < kept.shape[1]):
        raise IndexError("a row is outside the cache")
    row, turned = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(n):
        scale, to = row_tops[i, 0], rows[i]
        cos, sin = turns[positions[i], 0], turns[positions[i], 1]
        for head in range(queries + 2 * kv_heads):
            start = head * width
            for j in range(width):
                row[j] = columns[i, start + j] * scale
            if len(bias):
                for j in range(width):
                    row[j] += bias[start + j]
            if head >= queries + kv_heads:
                kept_tops[1, head - queries - kv_heads, to] = round_row(
                    row, kept[1, to, head - queries - kv_heads], SIGNED
                )
                continue
            weight = q_norm if head < queries else k_norm
            if len(weight):
                _norm(row, weight, floor)
            for j in range(half):
                turned[j] = row[j] * cos[j] + row[half + j] * sin[j]
                turned[half + j] = row[half + j] * cos[half + j] + row[j] * sin[half + j]
            if head < queries:
                tops[i, head] = round_row(turned, levels[i, head], SIGNED)
            else:
                kept_tops[0, head - queries, to] = round_row(turned, kept[0, to, head - queries], SIGNED)
