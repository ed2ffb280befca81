"""The same in one pass over each row, for processors."""

import numpy as np
from torch import Tensor

from confide_kernels.jit import F32, I8, ROUND, U8, empty, kernel, part
from confide_kernels.quant.naive import LEAST, LEVELS, Rows

_LEAST_BITS = np.float32(LEAST).view(np.int32)
_SIGNLESS = np.int32(0x7FFFFFFF)
_LEVELS = np.float32(LEVELS)
# What uint8 levels have added, and int8 levels have.
MIDDLE, SIGNED = np.int32(128), np.int32(0)


def quantise(x: Tensor) -> Rows:
    rows, levels, tops = empty_rows(*x.shape)
    _quantise(x.numpy(), levels, tops)
    return rows


def empty_rows(n: int, width: int) -> tuple[Rows, U8, F32]:
    """Return rows to be written, and where."""
    levels, tops = empty((n, width), np.uint8), empty((n, 1), np.float32)
    return Rows(levels[1], tops[1]), levels[0], tops[0]


@part
def round_row(row: F32, levels: I8 | U8, zero: np.int32) -> np.float32:
    """Write the row's levels plus `zero`; return its top.

    Magnitudes are compared as integers, which order like them, and put what is not a number above all.
    """
    most = _LEAST_BITS
    bits = row.view(np.int32)
    for j in range(len(row)):
        most = max(most, np.int32(bits[j] & _SIGNLESS))
    top = np.int32(most).view(np.float32)
    per_unit = _LEVELS / top
    for j in range(len(row)):
        levels[j] = np.int32((row[j] * per_unit + ROUND) - ROUND) + zero
    return top


@kernel("float32[:, ::1]", "uint8[:, ::1]", "float32[:, ::1]")
def _quantise(x: F32, levels: U8, tops: F32) -> None:
    for i in range(len(x)):
        tops[i, 0] = round_row(x[i], levels[i], MIDDLE)
