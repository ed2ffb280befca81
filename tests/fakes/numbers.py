"""Numbers for kernels: of any size, and those that are none."""

from collections.abc import Iterable

import torch
from confide_kernels.gemm import Product
from confide_kernels.quant import Rows
from torch import Tensor

# Bits of float32 that are no finite number: NaN of both signs, quiet and signalling, and the infinities.
NOT_FINITE = {
    "nan": 0x7FC00000,
    "-nan": 0xFFC00000,
    "least nan": 0x7F800001,
    "greatest -nan": 0xFF800001,
    "inf": 0x7F800000,
    "-inf": 0xFF800000,
}


def spoil(x: Tensor, at: tuple[int, ...], kind: str) -> None:
    """Write one of NOT_FINITE to an element, bit by bit: as a Python number it could change on the way."""
    x.view(torch.int32)[at] = torch.tensor(NOT_FINITE[kind], dtype=torch.int64).to(torch.int32)


def scales(*shape: int, octaves: int = 30) -> Tensor:
    """Return positive float32 over so many octaves up and down."""
    return torch.exp2(torch.rand(shape).mul_(2).sub_(1).mul_(octaves))


def product(rows: int, out: int, octaves: int = 30) -> Product:
    """Return whole numbers that int32 holds, in columns of any scale; rows of zeros now and then; any tops."""
    size = torch.exp2(torch.randint(1, 32, (rows, 1)).double())
    sums = torch.empty(rows, out, dtype=torch.float64).uniform_(-1, 1).mul_(size).trunc_()
    sums = sums.clamp_(-(2**31) + 1, 2**31 - 1).mul_(torch.rand(rows, 1) > 0.1).float()
    return Product(sums.mul_(scales(out, octaves=octaves // 2)), scales(rows, 1, octaves=octaves))


def same(one: Iterable[Tensor], other: Iterable[Tensor]) -> bool:
    """Return whether all bits but those of NaN are the same, and NaN is where NaN is; levels, as int8."""
    one, other = ((each.signed(), each.tops) if isinstance(each, Rows) else each for each in (one, other))
    return all(_same(*pair) for pair in zip(one, other, strict=True))


def _same(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return one.dtype == other.dtype and torch.equal(one, other)
    bits = [each.masked_fill(each.isnan(), 0).contiguous().view(torch.int32) for each in (one, other)]
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(*bits)


def floats(rows: Rows) -> Tensor:
    """Return what quantised rows stand for, float64."""
    return rows.signed().double() * (rows.tops.double() / 127)
