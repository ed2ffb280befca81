"""Linear layers against float64, and integer products against int64."""

import pytest
import torch
from confide_kernels import gemm
from confide_kernels.gemm import naive
from confide_kernels.gemm.naive import _choose_multiply, multiply_by_parts, multiply_int8
from confide_kernels.gemm.packed import _is_right
from confide_kernels.quant import quantise

SHAPES = [(1, 32, 1), (5, 128, 77), (17, 576, 960)]


def nibbles(width: int, out: int, group: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random weights of 4 bits: rows, scales and minima, and the weights that they stand for."""
    levels = torch.randint(0, 16, (out, width))
    scales = torch.stack([torch.rand(out, width // group), torch.randn(out, width // group) - 7], -1).half()
    one, least = (part.repeat_interleave(group, 1) for part in scales.float().unbind(-1))
    return (levels[:, 0::2] | levels[:, 1::2] << 4).to(torch.uint8), scales, levels * one + least


def odd(rows: int, width: int, out: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, width).to(dtype), (torch.randn(out, width) / width**0.5).to(dtype)


@pytest.mark.parametrize(("rows", "width", "out"), [(1, 1, 1), (5, 123, 77), (17, 576, 960)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_linear(rows: int, width: int, out: int, dtype: torch.dtype, tolerance: float) -> None:
    """The product is exact up to the rounding of its dtype."""
    x, weight = odd(rows, width, out, dtype)
    expected = x.double() @ weight.double().T
    torch.testing.assert_close(gemm.linear(x, weight).double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("rows", "width", "out"), [*SHAPES, (1, 1024, 768), (9, 1536, 577)])
def test_linear_w8a8(rows: int, width: int, out: int) -> None:
    """Of quantised rows and weights the product is the definition's; with theirs it is close to the floats'."""
    x, weight = odd(rows, width, out)
    found, w, scales = quantise(x), quantise(weight).signed(), quantise(weight).tops
    column_scales = scales.squeeze(-1) / 127**2
    sums = (found.signed().long() @ w.long().T).float()
    for product in (
        gemm.linear_w8a8(found, gemm.pack_w8a8(w), column_scales),
        naive.linear_w8a8(found, w, column_scales),
    ):
        assert torch.equal(product.columns, sums * column_scales)
        assert torch.equal(product.tops, found.tops)
    got = product.floats().double()
    expected = (found.signed() * (found.tops / 127)).double() @ (w * (scales / 127)).double().T
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got, x.double() @ weight.double().T, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("wanted", [[], [3], [4, 0, 4], range(5)])
def test_rows_of_a_product(wanted: list[int]) -> None:
    """Some rows of a product, none too, are those of the whole."""
    x, weight = odd(5, 64, 9)
    product = gemm.linear_w8a8(quantise(x), gemm.pack_w8a8(quantise(weight).signed()), torch.rand(9))
    rows = product.rows(torch.tensor(list(wanted), dtype=torch.int64))
    assert torch.equal(rows.floats(), product.floats()[list(wanted)])
    assert rows.columns.shape == (len(wanted), 9)


def test_a_product_of_no_rows() -> None:
    """A step that nobody is due a token of multiplies no rows, and gives none."""
    weight = gemm.pack_w8a8(torch.ones(77, 64, dtype=torch.int8))
    product = gemm.linear_w8a8(quantise(torch.randn(0, 64)), weight, torch.ones(77))
    assert product.floats().shape == (0, 77)


def test_a_row_that_is_not_finite_keeps_to_itself() -> None:
    """Its product is not finite, and that of a row beside it is as it was alone."""
    x, weight = odd(3, 64, 9)
    w, alone = gemm.pack_w8a8(quantise(weight).signed()), quantise(x[2:])
    x[0, 3], x[1, 5] = torch.nan, torch.inf
    found = gemm.linear_w8a8(quantise(x), w, torch.ones(9)).floats()
    assert not found[:2].isfinite().any()
    assert torch.equal(found[2:], gemm.linear_w8a8(alone, w, torch.ones(9)).floats())


@pytest.mark.parametrize(("rows", "width", "out"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_linear_w8a16(rows: int, width: int, out: int, dtype: torch.dtype, tolerance: float) -> None:
    """Weights of 8 bits meet rows of 16 or 32."""
    x, weight = odd(rows, width, out, dtype)
    rows = quantise(weight.float())
    w, scales = rows.signed(), rows.tops / 127
    expected = x.double() @ (w * scales).double().T
    got = gemm.linear_w8a16(x, w, scales.squeeze(-1))
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("rows", "width", "out"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
def test_linear_w4a16(rows: int, width: int, out: int, dtype: torch.dtype, tolerance: float) -> None:
    """Two weights to a byte, low half first; scale and minimum of a group of columns; packed or not."""
    x, (packed, scales, weight) = torch.randn(rows, width).to(dtype), nibbles(width, out)
    expected = x.double() @ weight.double().T
    for arguments in ((packed, scales), gemm.pack_w4a16(packed, scales, dtype)):
        got = gemm.linear_w4a16(x, *arguments)
        assert got.dtype == dtype
        most = tolerance * (x.double().abs() @ weight.double().abs().T)
        assert ((got.double() - expected).abs() <= most).all()


def test_only_what_torch_multiplies_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of float32, a number of outputs that torch does not take, and a torch without, or wrong: as it was."""
    packed, scales, _ = nibbles(64, 48)

    def is_packed(packed: torch.Tensor = packed, scales: torch.Tensor = scales, dtype=torch.bfloat16) -> bool:
        return gemm.pack_w4a16(packed, scales, dtype)[0] is not packed

    assert is_packed()
    assert not is_packed(dtype=torch.float32)
    assert not is_packed(*nibbles(64, 47)[:2])
    assert not is_packed(*nibbles(64, 48, 16)[:2])
    right = torch._weight_int4pack_mm_for_cpu
    for product in (lambda *_: right(*_).roll(1, 1), None):
        if product:
            monkeypatch.setattr(torch, "_weight_int4pack_mm_for_cpu", product)
        else:
            monkeypatch.delattr(torch, "_weight_int4pack_mm_for_cpu")
        _is_right.cache_clear()
        assert not is_packed()
    monkeypatch.undo()
    _is_right.cache_clear()
    assert is_packed()


@pytest.mark.parametrize("multiply", [multiply_int8, multiply_by_parts])
@pytest.mark.parametrize(
    ("n", "k", "m"), [(0, 64, 9), (1, 1, 1), (1, 576, 960), (3, 64, 100), (27, 3000, 192), (200, 64, 50)]
)
@pytest.mark.parametrize("extreme", [True, False])
def test_integer_products_are_exact(multiply, n: int, k: int, m: int, extreme: bool) -> None:
    """Whatever the shape and however great the levels, every sum is that of int64."""
    a, b = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((n, k), (m, k)))
    if extreme:
        a, b = a.sign() * 127, b.sign().abs() * 127
    assert torch.equal(multiply(a, b.t()).long(), a.long() @ b.t().long())


def test_an_inexact_product_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch's int8 product saturates, is absent, or refuses, ours takes its place."""
    assert _choose_multiply.__wrapped__() is torch._int_mm

    def saturating(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        # As vpmaddubsw does: one side unsigned, two products at a time in int16.
        pairs = ((a.long() + 128)[:, :, None] * b.long()).unflatten(1, (-1, 1 + (a.shape[1] % 2 == 0))).sum(2)
        return (pairs.clamp(-(2**15), 2**15 - 1).sum(1) - 128 * b.long().sum(0)).int()

    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert _choose_multiply.__wrapped__() is multiply_by_parts
    monkeypatch.delattr(torch, "_int_mm")
    assert _choose_multiply.__wrapped__() is multiply_by_parts


def test_a_matrix_of_one_column_is_exact() -> None:
    """torch's own product reads memory that is nobody's there."""
    a, b = (torch.randint(-127, 128, (n, 1), dtype=torch.int8) for n in (3, 5))
    assert torch.equal(multiply_int8(a, b.t()).long(), a.long() @ b.t().long())
