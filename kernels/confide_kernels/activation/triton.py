"""The same for GPUs: a row to a program where it is quantised, else a block."""

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.activation.naive import silu_table
from confide_kernels.gemm.naive import Product
from confide_kernels.gpu import EXACT, block_of, divide, kernel, warps_for
from confide_kernels.quant.naive import Rows
from confide_kernels.quant.triton import LEVELS, levels_of, top_of

_BLOCK = 1024


def silu_mul(gate_up: Tensor) -> Tensor:
    n, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(n, width, dtype=gate_up.dtype, device=gate_up.device)
    _silu_mul[(n, -(-width // _BLOCK))](gate_up, *gate_up.stride(), out, width, block=_BLOCK)
    return out


def silu_mul_int8(gate_up: Product) -> Rows:
    columns, row_tops = (each.contiguous() for each in gate_up)
    n, width = columns.shape[0], columns.shape[1] // 2
    levels = torch.empty(n, width, dtype=torch.int8, device=columns.device)
    tops = torch.empty(n, 1, device=columns.device)
    block = block_of(width)
    table = silu_table(columns.device)
    _silu_mul_int8[(n,)](
        columns,
        row_tops,
        table,
        levels,
        tops,
        width,
        block=block,
        num_warps=warps_for(block),
        **EXACT,
    )
    return Rows(levels, tops)


@kernel
def _silu_mul(
    gate_up: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    block: tl.constexpr,
) -> None:
    i, j = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    at = gate_up + i * row_stride
    gate = tl.load(at + j * column_stride, j < width, 0.0).to(tl.float32)
    up = tl.load(at + (width + j) * column_stride, j < width, 0.0).to(tl.float32)
    # Rounded between, as the definition is.
    silu = (gate / (1.0 + tl.exp(-gate))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + i * width + j, (silu * up).to(out.dtype.element_ty), j < width)


@kernel
def _silu_mul_int8(
    columns: tl.tensor,
    row_tops: tl.tensor,
    table: tl.tensor,
    levels: tl.tensor,
    tops: tl.tensor,
    width: tl.tensor,
    block: tl.constexpr,
) -> None:
    i, j = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    own = j < width
    at, scale = columns + 2 * i * width, tl.load(row_tops + i)
    gate = tl.load(at + j, own, 0.0) * scale
    up = tl.load(at + width + j, own, 0.0) * scale
    place = gate.to(tl.float16).to(tl.uint16, bitcast=True).to(tl.int32)
    # Beyond the row 0 times a scale that is no number would be none.
    row = tl.where(own, tl.load(table + place, own, 0.0) * up, 0.0)
    top = top_of(row)
    tl.store(levels + i * width + j, levels_of(row, divide(LEVELS, top)).to(tl.int8), own)
    tl.store(tops + i, top)
