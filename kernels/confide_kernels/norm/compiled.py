"""The same in one pass over each row, for processors."""

import math

import numpy as np
import torch
from torch import Tensor

from confide_kernels.gemm.naive import Product
from confide_kernels.jit import F32, U8, kernel
from confide_kernels.quant.compiled import MIDDLE, empty_rows, round_row
from confide_kernels.quant.naive import LEVELS, Rows

_NOTHING = Product(torch.empty(0, 0), torch.empty(0, 1))


def add_rms_norm_int8(residual: Tensor, added: Product | None, epsilon: float) -> Rows:
    n, width = residual.shape
    columns, tops = added or _NOTHING
    rows, levels, scales = empty_rows(n, width)
    _add_rms_norm(
        residual.numpy(),
        columns.numpy(),
        tops.numpy(),
        math.sqrt(epsilon * width),
        LEVELS * math.sqrt(width),
        levels,
        scales,
    )
    return rows


@kernel(
    "float32[:, ::1]",
    "float32[:, ::1]",
    "float32[:, ::1]",
    "float64",
    "float64",
    "uint8[:, ::1]",
    "float32[:, ::1]",
)
def _add_rms_norm(
    residual: F32, columns: F32, row_tops: F32, floor: float, unit: float, levels: U8, tops: F32
) -> None:
    n, width = residual.shape
    for i in range(n):
        row = residual[i]
        if len(columns):
            scale = row_tops[i, 0]
            for j in range(width):
                row[j] += columns[i, j] * scale
        top = round_row(row, levels[i], MIDDLE)
        squares = np.int32(0)
        for j in range(width):
            level = np.int32(np.int32(levels[i, j]) - MIDDLE)
            squares = np.int32(squares + level * level)
        least = np.float64(np.float32(LEVELS) / top) * floor
        tops[i, 0] = np.float32(1.0 / math.sqrt(np.float64(squares) + least * least) * unit)
