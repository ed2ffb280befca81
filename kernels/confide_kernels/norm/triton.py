"""The same for GPUs, a row to a program."""

import math

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.gemm.naive import Product
from confide_kernels.gpu import EXACT, block_of, divide, kernel, warps_for
from confide_kernels.quant import naive
from confide_kernels.quant.naive import Rows
from confide_kernels.quant.triton import LEVELS, levels_of, top_of


def add_rms_norm_int8(residual: Tensor, added: Product | None, epsilon: float) -> Rows:
    n, width = residual.shape
    levels = torch.empty(n, width, dtype=torch.int8, device=residual.device)
    tops = torch.empty(n, 1, device=residual.device)
    columns, row_tops = (residual, residual) if added is None else (each.contiguous() for each in added)
    block = block_of(width)
    _add_rms_norm[(n,)](
        residual,
        *residual.stride(),
        columns,
        row_tops,
        levels,
        tops,
        width,
        floor=math.sqrt(epsilon * width),
        unit=naive.LEVELS * math.sqrt(width),
        adds=added is not None,
        block=block,
        num_warps=warps_for(block),
        **EXACT,
    )
    return Rows(levels, tops)


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, dtype: torch.dtype) -> Tensor:
    n, width = x.shape
    out = torch.empty(n, width, dtype=dtype, device=x.device)
    block = block_of(width)
    _rms_norm[(n,)](
        x,
        *x.stride(),
        x if weight is None else weight.contiguous(),
        out,
        width,
        epsilon=epsilon,
        weighs=weight is not None,
        block=block,
        num_warps=warps_for(block),
    )
    return out


@kernel
def _add_rms_norm(
    residual: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    columns: tl.tensor,
    row_tops: tl.tensor,
    levels: tl.tensor,
    tops: tl.tensor,
    width: tl.tensor,
    floor: tl.constexpr,
    unit: tl.constexpr,
    adds: tl.constexpr,
    block: tl.constexpr,
) -> None:
    i, j = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    own = j < width
    at = residual + i * row_stride + j * column_stride
    row = tl.load(at, own, 0.0)
    if adds:
        product = tl.load(columns + i * width + j, own, 0.0) * tl.load(row_tops + i)
        # Beyond the row 0 times a scale that is no number would be none.
        row = tl.where(own, row + product, 0.0)
        tl.store(at, row, own)
    top = top_of(row)
    per_unit = divide(LEVELS, top)
    whole = levels_of(row, per_unit)
    squares = tl.sum(whole * whole, 0)
    least = per_unit.to(tl.float64) * floor
    scale = (1.0 / tl.sqrt(squares.to(tl.float64) + least * least) * unit).to(tl.float32)
    scale = tl.where(top < float("inf"), scale, float("nan"))
    tl.store(levels + i * width + j, whole.to(tl.int8), own)
    tl.store(tops + i, scale)


@kernel
def _rms_norm(
    x: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    epsilon: tl.constexpr,
    weighs: tl.constexpr,
    block: tl.constexpr,
) -> None:
    i, j = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    row = tl.load(x + i * row_stride + j * column_stride, j < width, 0.0)
    scale = tl.rsqrt(tl.sum(row * row, 0) / width + epsilon)
    row *= scale
    if weighs:
        row *= tl.load(weight + j, j < width, 0.0)
    tl.store(out + i * width + j, row.to(out.dtype.element_ty), j < width)
