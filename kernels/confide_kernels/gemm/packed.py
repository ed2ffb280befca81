"""Weights of 4 bits in the layout of torch's own product on CPUs, where it has one and it is right."""

from functools import cache
from typing import Final

import torch
from torch import Tensor

from confide_kernels.gemm import naive
from confide_kernels.place import on_gpu

# torch takes groups of these many columns, and rows by the sixteen.
_GROUPS: Final = (32, 64, 128, 256)
_ROWS: Final = 16


def pack_w4a16(weight: Tensor, weight_scales: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what `linear_w4a16` takes for rows of `dtype`: torch's layout if there is one, else the definition's.

    Arguments as in the definition. torch's product rounds scales to bfloat16, so it serves rows of that type alone.
    """
    if on_gpu(weight):
        return weight.contiguous(), weight_scales.contiguous()
    out, groups, _ = weight_scales.shape
    fits = out % _ROWS == 0 and 2 * weight.shape[1] in (groups * group for group in _GROUPS)
    if dtype != torch.bfloat16 or weight.device.type != "cpu" or not fits or not _is_right():
        return weight, weight_scales
    return _pack(weight, weight_scales)


def linear_w4a16(x: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """Return the definition's product, of weights that `pack_w4a16` returned for x's dtype."""
    if weight_scales.dtype != torch.bfloat16:
        return naive.linear_w4a16(x, weight, weight_scales)
    return torch._weight_int4pack_mm_for_cpu(x, weight, 2 * weight.shape[1] // len(weight_scales), weight_scales)


def _pack(weight: Tensor, weight_scales: Tensor) -> tuple[Tensor, Tensor]:
    """torch's scales are [groups, out, 2]: a level's worth, and what level 8 stands for."""
    levels = torch.stack([weight & 15, weight >> 4], -1).flatten(1).int()
    scales, least = weight_scales.float().unbind(-1)
    middle = torch.stack([scales, least.add(scales, alpha=8)], -1).transpose(0, 1)
    return torch._convert_weight_to_int4pack_for_cpu(levels, 1), middle.bfloat16().contiguous()


@cache
def _is_right() -> bool:
    """Every level at every place of a product, alone: torch has other layouts on other machines."""
    out, groups, group = 80, 3, 32
    level = torch.arange(out * groups * group // 2).mul_(7).remainder_(256).to(torch.uint8).view(out, -1)
    scales = torch.stack([torch.arange(1, out * groups + 1).remainder(7), torch.full((out * groups,), -8)], -1)
    scales = scales.view(out, groups, 2).half()
    try:
        got = torch._weight_int4pack_mm_for_cpu(
            torch.eye(groups * group, dtype=torch.bfloat16), (packed := _pack(level, scales))[0], group, packed[1]
        )
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(got.float(), naive.linear_w4a16(torch.eye(groups * group), level, scales))
