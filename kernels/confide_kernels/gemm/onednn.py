"""Products of int8 in the layout that oneDNN multiplies from, where they are exact.

Its kernels take rows without signs: a level plus 128. What that adds, 128 times the sum of a row of the weights,
they take off again in int32. Where vector units saturate sums of two products in int16, as some without VNNI do,
they are not exact, and the definition is used.
"""

from functools import cache

import torch
from torch import Tensor

from confide_kernels.gemm import naive
from confide_kernels.gemm.naive import MAX_WIDTH, Product
from confide_kernels.place import on_gpu
from confide_kernels.quant.naive import Rows

_MIDDLE = 128
# Smaller ones cost a single row more in the call than packing brings.
_LARGE = 1 << 20


def pack_w8a8(weight: Tensor) -> Tensor:
    """Return a weight as `linear_w8a8` takes it: packed, a copy, where that is exact and pays.

    weight: [out, in] int8.
    """
    if weight.shape[1] > MAX_WIDTH:
        raise ValueError(f"rows of more than {MAX_WIDTH} columns may leave int32")
    if on_gpu(weight):
        return weight.contiguous()
    return _pack(weight) if weight.is_cpu and weight.numel() >= _LARGE and is_exact() else weight


def linear_w8a8(rows: Rows, weight: Tensor, weight_scales: Tensor) -> Product:
    """Return the definition's product, of a weight that `pack_w8a8` returned."""
    if not weight.is_mkldnn:
        return naive.linear_w8a8(rows, weight, weight_scales)
    return Product(_multiply(rows.unsigned(), weight, weight_scales), rows.tops)


@cache
def is_exact() -> bool:
    """Multiply extremes, and levels at random, in the shapes that kernels tell apart."""
    draw = torch.Generator().manual_seed(0)
    try:
        for rows, width, out in ((1, 576, 96), (7, 1536, 49), (40, 33, 65)):
            levels, weight = (torch.randint(-127, 128, (n, width), generator=draw) for n in (rows, out))
            scales = torch.rand(out, generator=draw)
            for left, right in (
                (levels, weight),
                (levels.sign() * 127, weight.sign() * 127),
                _greatest(rows, out, width),
            ):
                expected = (left @ right.t()).float().mul_(scales)
                packed = _pack(right.to(torch.int8))
                if not torch.equal(_multiply((left + _MIDDLE).to(torch.uint8), packed, scales), expected):
                    return False
    except (AttributeError, RuntimeError):
        return False
    return True


def _greatest(rows: int, out: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.full((rows, width), 127), torch.full((out, width), -127)


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def _multiply(rows: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    """Return sums times scales, each rounded once, float32. rows: [n, in] uint8."""
    product: Tensor = torch.ops.onednn.qlinear_pointwise.default(
        rows, 1.0, _MIDDLE, packed, scales, _zeros(len(scales)), None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product


@cache
def _zeros(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.int64)
