"""The same for GPUs, a row to a program."""

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.gpu import EXACT, ROUND, block_of, divide, kernel, magnitude_bits, part, warps_for
from confide_kernels.quant import naive
from confide_kernels.quant.naive import LEAST, Rows

LEVELS = tl.constexpr(float(naive.LEVELS))
LEAST_BITS = tl.constexpr(int(np.float32(LEAST).view(np.int32)))


def quantise(x: Tensor) -> Rows:
    n, width = x.shape
    levels = torch.empty(n, width, dtype=torch.int8, device=x.device)
    tops = torch.empty(n, 1, device=x.device)
    block = block_of(width)
    _quantise[(n,)](x, *x.stride(), levels, tops, width, block=block, num_warps=warps_for(block), **EXACT)
    return Rows(levels, tops)


@part
def top_of(x: tl.tensor) -> tl.tensor:
    """Return the greatest magnitude along the last dimension, NaN where there is one."""
    bits = tl.max(magnitude_bits(x), len(x.shape) - 1)
    return tl.maximum(bits, LEAST_BITS).to(tl.float32, bitcast=True)


@part
def levels_of(x: tl.tensor, per_unit: tl.tensor) -> tl.tensor:
    """Return the levels of x, int32; 0 where it is not finite."""
    levels = (x * per_unit + ROUND) - ROUND
    return tl.where(levels == levels, levels, 0.0).to(tl.int32)


@kernel
def _quantise(
    x: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    levels: tl.tensor,
    tops: tl.tensor,
    width: tl.tensor,
    block: tl.constexpr,
) -> None:
    i, j = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    row = tl.load(x + i * row_stride + j * column_stride, j < width, 0.0)
    top = top_of(row)
    tl.store(levels + i * width + j, levels_of(row, divide(LEVELS, top)).to(tl.int8), j < width)
    tl.store(tops + i, top)
