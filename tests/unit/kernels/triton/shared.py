"""Where kernels run, how their results are compared, and numbers to give them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from confide_kernels.gemm import Product
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def require_triton() -> None:
    pytest.importorskip("triton", reason="Triton is not installed: pip install triton==3.9.0")


def on_device(value: Any) -> Any:
    """Copy tensors, in tuples too, to where kernels run."""
    if isinstance(value, Tensor):
        return value.clone() if DEVICE == "cpu" else value.to(DEVICE)
    if isinstance(value, tuple):
        parts = [on_device(each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def same_bits(got: Any, expected: Any) -> None:
    """Assert that tensors, in tuples too, are alike to the last bit; what is not a number is like what is not."""
    if isinstance(expected, tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            same_bits(one, other)
        return
    if expected is None:
        assert got is None
        return
    got = got.cpu()
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    if got.is_floating_point():
        assert torch.equal(got.isnan(), expected.isnan())
        got, expected = got.nan_to_num(7.0, 9e30, -9e30), expected.nan_to_num(7.0, 9e30, -9e30)
    assert torch.equal(got, expected)


def check(kernel: Callable[..., Any], definition: Callable[..., Any], *arguments: Any) -> Any:
    """Run both on copies; compare what they return and what they did to their arguments."""
    mine, theirs = on_device(arguments), tuple(_clone(each) for each in arguments)
    got, expected = kernel(*mine), definition(*theirs)
    same_bits(got, expected)
    for one, other in zip(mine, theirs, strict=True):
        if isinstance(one, Tensor):
            same_bits(one, other)
    return got


def product(n: int, out: int, size: float = 1.0) -> Product:
    """Whole numbers such as come of rows of levels, times scales, and tops that make them of about `size`."""
    sums = torch.randint(-200_000, 200_000, (n, out), dtype=torch.int32)
    return Product(sums * (torch.rand(out) * 1e-5), torch.rand(n, 1) * size)


def strided(x: Tensor) -> Tensor:
    """Return the same numbers, every second of wider rows."""
    wide = torch.full((x.shape[0], 2 * x.shape[1] + 3), 55, dtype=x.dtype)
    view = wide[:, 1 : 1 + 2 * x.shape[1] : 2]
    view.copy_(x)
    return view


def _clone(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple):
        parts = [_clone(each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
