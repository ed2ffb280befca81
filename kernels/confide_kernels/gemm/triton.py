"""The same for GPUs. Tiles are chosen by the shape alone: nothing is timed, so no run differs from another.

Sums of levels are integers: tiles and splits cannot be seen in them. Sums of floats are made in the order of the
columns, in as many parts as the shape says, and the parts are added in theirs.
"""

from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.gemm.naive import Product
from confide_kernels.gpu import EXACT, block_of, kernel_of_any, part
from confide_kernels.quant.naive import Rows

# Programs that keep every multiprocessor of a large GPU at work.
_ENOUGH = 264
_MOST_PARTS = 16
_PANEL = tl.constexpr(8)


class Tiles(NamedTuple):
    """Rows, columns and depth of a tile, how many parts the depth is cut into, and a program's warps and stages."""

    rows: int
    columns: int
    depth: int
    parts: int
    warps: int
    stages: int


def tiles_for(n: int, out: int, width: int, dtype: torch.dtype) -> Tiles:
    """Choose by the shape, and by what the rows are of: levels as the weights are, or floats."""
    levels = dtype == torch.int8
    if dtype == torch.float32:  # without tensor cores: registers are what there is too little of
        tiles = Tiles(16, 32, 32, 1, 4, 3) if n <= 16 else Tiles(64, 64, 32, 1, 8, 3)
    else:
        large = Tiles(128, 128 if levels else 64, 128 if levels else 64, 1, 8, 3)
        if n > 64 and _programs(large, n, out) >= _ENOUGH // 2:
            return large
        rows, columns = min(64, block_of(n, 16)), 64 if n > 64 or out >= 64 * _ENOUGH else 32
        tiles = Tiles(rows, columns, 128 if levels or n <= 64 else 64, 1, 4, 4)
    parts = min(_MOST_PARTS, _ENOUGH // _programs(tiles, n, out), width // (4 * tiles.depth))
    return tiles._replace(parts=max(1, parts))


def _programs(tiles: Tiles, n: int, out: int) -> int:
    return max(1, -(-n // tiles.rows) * -(-out // tiles.columns))


def _multiply(a: Tensor, b: Tensor, scales: Tensor, tiles: Tiles) -> Tensor:
    """Scale the columns in passing where a program has whole sums, else afterwards."""
    (n, width), out = a.shape, b.shape[1]
    whole = tiles.parts == 1
    made = (
        torch.empty(n, out, device=a.device) if whole else torch.zeros(n, out, dtype=torch.int32, device=a.device)
    )
    _multiply_int8[(-(-n // tiles.rows) * -(-out // tiles.columns), tiles.parts)](
        a,
        *a.stride(),
        b,
        *b.stride(),
        scales.contiguous(),
        made,
        n,
        out,
        width,
        *tiles[:4],
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        **EXACT,
    )
    return made if whole else torch.mul(made, scales)


def linear_w8a8(rows: Rows, weight: Tensor, weight_scales: Tensor) -> Product:
    levels = rows.signed()
    tiles = tiles_for(len(levels), len(weight), weight.shape[1], torch.int8)
    return Product(_multiply(levels, weight.t(), weight_scales, tiles), rows.tops)


def linear_w8a16(x: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    return _linear(x, weight, weight_scales.view(-1, 1), 8)


def linear_w4a16(x: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    return _linear(x, weight, weight_scales, 4)


def _linear(x: Tensor, weight: Tensor, scales: Tensor, bits: int) -> Tensor:
    (n, width), out = x.shape, len(weight)
    tiles = tiles_for(n, out, width, x.dtype)
    if bits == 4:  # halves of bytes need as many registers again
        tiles = tiles._replace(depth=min(tiles.depth, 64), warps=8 if max(tiles[:2]) > 32 else 4)
    made = torch.empty(tiles.parts, n, out, dtype=x.dtype if tiles.parts == 1 else torch.float32, device=x.device)
    _linear_kernel[(-(-n // tiles.rows) * -(-out // tiles.columns), tiles.parts)](
        x,
        *x.stride(),
        weight.contiguous(),
        scales.contiguous(),
        made,
        n,
        out,
        width,
        scales.shape[1],
        width // scales.shape[1],
        *tiles[:4],
        bits=bits,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return made[0] if tiles.parts == 1 else made.sum(0).to(x.dtype)


@part
def _place(n: tl.tensor, out: tl.tensor, rows: tl.constexpr, columns: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return this program's tile: tiles go in panels of a few rows, whose operands stay in the L2 cache."""
    down, right = tl.cdiv(n, rows), tl.cdiv(out, columns)
    panel = tl.program_id(0) // (_PANEL * right)
    height = tl.minimum(down - panel * _PANEL, _PANEL)
    within = tl.program_id(0) % (_PANEL * right)
    return panel * _PANEL + within % height, within // height


@kernel_of_any("n")
def _multiply_int8(
    a: tl.tensor,
    a_row: tl.tensor,
    a_column: tl.tensor,
    b: tl.tensor,
    b_row: tl.tensor,
    b_column: tl.tensor,
    scales: tl.tensor,
    made: tl.tensor,
    n: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    parts: tl.constexpr,
) -> None:
    down, right = _place(n, out, rows, columns)
    i, j = down.to(tl.int64) * rows + tl.arange(0, rows), right.to(tl.int64) * columns + tl.arange(0, columns)
    k = tl.program_id(1) * depth + tl.arange(0, depth)
    a_at = a + i[:, None] * a_row + k[None, :] * a_column
    b_at = b + k[:, None] * b_row + j[None, :] * b_column
    total = tl.zeros([rows, columns], tl.int32)
    for first in range(0, width, depth * parts):
        left = tl.load(a_at, (i < n)[:, None] & (first + k < width)[None, :], 0)
        right_tile = tl.load(b_at, (first + k < width)[:, None] & (j < out)[None, :], 0)
        total = tl.dot(left, right_tile, total, out_dtype=tl.int32)
        a_at += depth * parts * a_column
        b_at += depth * parts * b_row
    at, own = made + i[:, None] * out + j[None, :], (i < n)[:, None] & (j < out)[None, :]
    if parts > 1:
        tl.atomic_add(at, total, own)
    else:
        scale = tl.load(scales + j, j < out, 0.0)[None, :]
        tl.store(at, total.to(tl.float32) * scale, own)


@kernel_of_any("n")
def _linear_kernel(
    x: tl.tensor,
    x_row: tl.tensor,
    x_column: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    made: tl.tensor,
    n: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    groups: tl.tensor,
    group: tl.tensor,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    parts: tl.constexpr,
    bits: tl.constexpr,
) -> None:
    down, right = _place(n, out, rows, columns)
    i, j = down.to(tl.int64) * rows + tl.arange(0, rows), right.to(tl.int64) * columns + tl.arange(0, columns)
    dtype = x.dtype.element_ty
    per_byte: tl.constexpr = 8 // bits
    total = tl.zeros([rows, columns], tl.float32)
    for first in range(tl.program_id(1) * depth, width, depth * parts):
        k = first + tl.arange(0, depth)
        row = tl.load(x + i[:, None] * x_row + k[None, :] * x_column, (i < n)[:, None] & (k < width)[None, :], 0.0)
        # Two weights of 4 bits share a byte, which both of their threads read: the cache has it.
        at = weight + j[None, :] * (width // per_byte) + (k // per_byte)[:, None]
        own = (k < width)[:, None] & (j < out)[None, :]
        if bits == 4:
            byte = tl.load(at, own, 0).to(tl.int32)
            levels = ((byte >> (4 * (k & 1))[:, None]) & 15).to(tl.float32)
            pair = scales + (j[None, :] * groups + (k // group)[:, None]) * 2
            scale, least = tl.load(pair, own, 0.0).to(tl.float32), tl.load(pair + 1, own, 0.0).to(tl.float32)
            total = tl.dot(row, (levels * scale + least).to(dtype), total, input_precision="ieee")
        else:
            levels = tl.load(at, own, 0).to(tl.float32).to(dtype)
            total = tl.dot(row, levels, total, input_precision="ieee")
    if bits == 8:
        total *= tl.load(scales + j, j < out, 0.0).to(tl.float32)[None, :]
    at = made + (tl.program_id(1).to(tl.int64) * n + i[:, None]) * out + j[None, :]
    tl.store(at, total.to(made.dtype.element_ty), (i < n)[:, None] & (j < out)[None, :])
