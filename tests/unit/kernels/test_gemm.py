"""Linear layers against float64, and integer products against int64."""

import pytest
import torch
from confide_kernels import gemm
from confide_kernels.gemm.naive import _choose_multiply, multiply_by_parts
from confide_kernels.quant import quantise

SHAPES = [(1, 32, 1), (5, 128, 77), (17, 576, 960)]


def odd(rows: int, width: int, out: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, width).to(dtype), (torch.randn(out, width) / width**0.5).to(dtype)


@pytest.mark.parametrize(("rows", "width", "out"), [(1, 1, 1), (5, 123, 77), (17, 576, 960)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_linear(rows: int, width: int, out: int, dtype: torch.dtype, tolerance: float) -> None:
    """The product is exact up to the rounding of its dtype."""
    x, weight = odd(rows, width, out, dtype)
    expected = x.double() @ weight.double().T
    torch.testing.assert_close(gemm.linear(x, weight).double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("rows", "width", "out"), SHAPES)
def test_linear_w8a8(rows: int, width: int, out: int) -> None:
    """Of quantised rows and weights the product is the definition's; with theirs it is close to the floats'."""
    x, weight = odd(rows, width, out)
    (levels, tops), (w, scales) = quantise(x), quantise(weight)
    got = gemm.linear_w8a8(levels, tops, w, scales.squeeze(-1) / 127**2).double()
    expected = (levels * (tops / 127)).double() @ (w * (scales / 127)).double().T
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got, x.double() @ weight.double().T, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(("rows", "width", "out"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_linear_w8a16(rows: int, width: int, out: int, dtype: torch.dtype, tolerance: float) -> None:
    """Weights of 8 bits meet rows of 16 or 32."""
    x, weight = odd(rows, width, out, dtype)
    w, scales = quantise(weight.float())
    scales /= 127
    expected = x.double() @ (w * scales).double().T
    got = gemm.linear_w8a16(x, w, scales.squeeze(-1))
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("rows", "width", "out"), SHAPES)
def test_linear_w4a16(rows: int, width: int, out: int) -> None:
    """Two weights to a byte, low half first, and a scale for each group of columns."""
    x = torch.randn(rows, width)
    levels, scales = torch.randint(-8, 8, (out, width)), torch.rand(out, width // 32)
    packed = ((levels[:, 0::2] + 8) | (levels[:, 1::2] + 8) << 4).to(torch.uint8)
    weight = levels * scales.repeat_interleave(32, 1)
    torch.testing.assert_close(gemm.linear_w4a16(x, packed, scales), x @ weight.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("multiply", [gemm.multiply_int8, multiply_by_parts])
@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 1), (1, 576, 960), (3, 64, 100), (27, 3000, 192), (200, 64, 50)])
@pytest.mark.parametrize("extreme", [True, False])
def test_integer_products_are_exact(multiply, n: int, k: int, m: int, extreme: bool) -> None:
    """Whatever the shape and however great the levels, every sum is that of int64."""
    a, b = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((n, k), (m, k)))
    if extreme:
        a, b = a.sign() * 127, b.sign().abs() * 127
    assert torch.equal(multiply(a, b.t()).long(), a.long() @ b.t().long())


def test_an_inexact_product_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch's int8 product saturates, is absent, or refuses, ours takes its place."""
    assert _choose_multiply() is torch._int_mm

    def saturating(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        # As vpmaddubsw does: one side unsigned, two products at a time in int16.
        pairs = ((a.long() + 128)[:, :, None] * b.long()).unflatten(1, (-1, 1 + (a.shape[1] % 2 == 0))).sum(2)
        return (pairs.clamp(-(2**15), 2**15 - 1).sum(1) - 128 * b.long().sum(0)).int()

    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert _choose_multiply() is multiply_by_parts
    monkeypatch.delattr(torch, "_int_mm")
    assert _choose_multiply() is multiply_by_parts
