"""The same in one pass over each row, for processors."""

from functools import cache

import numpy as np
import torch

from confide_kernels.activation.naive import silu_table
from confide_kernels.gemm.naive import Product
from confide_kernels.jit import F32, U8, kernel, part
from confide_kernels.quant.compiled import MIDDLE, empty_rows, round_row
from confide_kernels.quant.naive import Rows

_SIGN = np.uint32(0x8000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
# float32 bits from which on a float16 is infinite, or not a number, and those under which it is subnormal.
_ENDLESS, _NAN, _SMALL = np.uint32(0x47800000), np.uint32(0x7F800000), np.uint32(0x38800000)
_HALF_ENDLESS, _HALF_NAN = np.uint32(0x7C00), np.uint32(0x7E00)
_HALF, _HALF_BITS = np.float32(0.5), np.uint32(0x3F000000)
_BIAS, _BELOW, _ONE, _CUT = np.uint32(0x38000000), np.uint32(0xFFF), np.uint32(1), np.uint32(13)


def silu_mul_int8(gate_up: Product) -> Rows:
    columns, tops = gate_up
    rows, levels, row_tops = empty_rows(columns.shape[0], columns.shape[1] // 2)
    _silu_mul(columns.numpy(), tops.numpy(), _table(), levels, row_tops)
    return rows


@cache
def _table() -> F32:
    return silu_table(torch.device("cpu")).numpy()


@part
def _to_half(x: np.float32) -> np.uint32:
    """Return the bits of the nearest float16, ties to even."""
    bits = np.float32(x).view(np.uint32)
    magnitude = np.uint32(bits & _MAGNITUDE)
    # One half plus a small magnitude has it in its last bits, rounded.
    small = np.float32(np.uint32(magnitude).view(np.float32) + _HALF).view(np.uint32) - _HALF_BITS
    half = (magnitude - _BIAS + _BELOW + ((magnitude >> _CUT) & _ONE)) >> _CUT
    half = small if magnitude < _SMALL else half
    half = _HALF_ENDLESS if magnitude >= _ENDLESS else half
    half = _HALF_NAN if magnitude > _NAN else half
    return np.uint32(half | ((bits >> np.uint32(16)) & _SIGN))


@kernel("float32[:, ::1]", "float32[:, ::1]", "float32[::1]", "uint8[:, ::1]", "float32[:, ::1]")
def _silu_mul(columns: F32, row_tops: F32, table: F32, levels: U8, tops: F32) -> None:
    n, width = levels.shape
    row = np.empty(width, np.float32)
    places = np.empty(width, np.uint32)
    for i in range(n):
        scale = row_tops[i, 0]
        for j in range(width):
            places[j] = _to_half(columns[i, j] * scale)
        for j in range(width):
            row[j] = table[places[j]] * (columns[i, width + j] * scale)
        tops[i, 0] = round_row(row, levels[i], MIDDLE)
