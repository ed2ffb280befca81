"""The definition in plain torch."""

from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from confide_kernels.quant.naive import Rows

# 2^16 * 255 * 127 < 2^31: no sum of products of int8 levels leaves int32, nor if one side has 128 added.
MAX_WIDTH: Final = 1 << 16


class Product(NamedTuple):
    """A product of quantised matrices, its rows' scales not yet applied: what comes next does that in passing.

    columns: [n, out] float32, whole numbers times the columns' scales; tops: [n, 1] float32.
    """

    columns: Tensor
    tops: Tensor

    def rows(self, wanted: Tensor) -> "Product":
        """Return some of the rows, [m] int64."""
        return Product(self.columns.index_select(0, wanted), self.tops.index_select(0, wanted))

    def floats(self) -> Tensor:
        """Return the product itself, float32."""
        return self.columns * self.tops


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x @ weight.T`, [n, out]. x: [n, in]; weight: [out, in]; both of one dtype, which the result has."""
    return nn.functional.linear(x, weight)


def linear_w8a8(rows: Rows, weight: Tensor, weight_scales: Tensor) -> Product:
    """Return `rows @ weight.T`. Exact for in <= MAX_WIDTH.

    rows: [n, in]; weight: [out, in] int8 without -128, weight_scales: [out]. A level of row i times one of weight
    row j is tops[i] * weight_scales[j].
    """
    return Product(torch.mul(multiply_int8(rows.signed(), weight.t()), weight_scales), rows.tops)


def linear_w8a16(x: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Return `x @ (weight * weight_scales).T` in x's dtype.

    x: [n, in]; weight: [out, in] int8; weight_scales: [out].
    """
    if x.device.type == "cpu":
        return torch._weight_int8pack_mm(x, weight, weight_scales.to(x.dtype))
    return linear(x, weight.to(x.dtype)).mul_(weight_scales)


def linear_w4a16(x: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Return `x @ weight.T` in x's dtype, for weights of 4 bits that share scale and minimum by groups of columns.

    x: [n, in]; weight: [out, in / 2] uint8: column 2j is the low half of byte j; weight_scales: [out, groups, 2]:
    level l of a group stands for l times its first, plus its second.
    """
    out, groups, _ = weight_scales.shape
    scales, least = torch.split(weight_scales.float(), 1, -1)
    levels = torch.stack([weight & 15, weight >> 4], -1).float().view(out, groups, -1)
    return linear(x, levels.mul_(scales).add_(least).view(out, -1).to(x.dtype))


def multiply_by_parts(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b` in int32, exactly: each part has at most 1,024 * 127 * 127 < 2^24, which float32 holds.

    a: [n, k] int8; b: [k, m] int8; neither holds -128.
    """
    parts = zip(torch.split(a, 1024, 1), torch.split(b, 1024, 0), strict=True)
    return torch.stack([(left.float() @ right.float()).int() for left, right in parts]).sum(0, dtype=torch.int32)


def multiply_int8(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b` in int32, exactly; by torch's own product where that is. a, b: as `multiply_by_parts` has."""
    # torch's own reads past the end of a matrix of one row.
    return multiply_by_parts(a, b) if a.shape[1] == 1 else _choose_multiply()(a, b)


@cache
def _choose_multiply() -> Callable[[Tensor, Tensor], Tensor]:
    """Return torch's own int8 product where it is exact. Older vector units saturate sums of two in int16.

    Found when it is first needed: whichever thread asks gets threads to share the work, and two such groups in one
    process slow each other down.
    """
    extremes = torch.tensor([127, -127], dtype=torch.int8)
    try:
        for rows, width, out in ((1, 576, 960), (5, 1536, 64), (40, 64, 300), (9, 192, 1), (27, 33, 65)):
            a = extremes[torch.arange(rows * width).remainder(3).remainder(2)].view(rows, width)
            b = extremes[torch.arange(width * out).remainder(5).remainder(2)].view(out, width).t()
            for left, right in ((a, b), (a.abs(), b.abs()), (a.abs(), b.abs().neg())):
                if not torch.equal(torch._int_mm(left, right).long(), left.long() @ right.long()):
                    return multiply_by_parts
    except (AttributeError, RuntimeError):
        return multiply_by_parts
    return torch._int_mm
