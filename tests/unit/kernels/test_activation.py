"""The gated activation against float64, and its versions against each other."""

import hashlib

import pytest
import torch
from confide_kernels.activation import compiled, naive, silu_mul, silu_mul_int8, silu_table
from confide_kernels.gemm import Product
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import numbers
from tests.fakes.numbers import NOT_FINITE, same

VERSIONS = pytest.mark.parametrize("silu_mul_int8", [naive.silu_mul_int8, compiled.silu_mul_int8, silu_mul_int8])


def halves() -> torch.Tensor:
    """Return every float16, what lies midway between it and the next, and the float32 on both sides of that."""
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.float16).float()
    bits = every[every.isfinite()].view(torch.int32)
    # Normal numbers lie 2^13 float32 apart; of subnormal ones the midpoint is a sum. 65520 is midway to infinity.
    normal = bits + (1 << 12)
    small = torch.arange(1 << 10).double().add_(0.5).mul_(2.0**-24).float()
    midway = torch.cat([normal, small.view(torch.int32), small.neg().view(torch.int32)])
    odd = torch.tensor(list(NOT_FINITE.values())).to(torch.int32)
    greatest = torch.tensor([65520.0, 65536.0, 3.4e38, 1e-45, 2.0**-25, 2.0**-26]).view(torch.int32)
    near = torch.cat([midway, greatest, bits])
    return torch.cat([near, near - 1, near + 1, odd, odd | -(1 << 31)]).view(torch.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", [(1, 2), (5, 123 * 2)])
def test_silu_mul(shape: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    """The first half gates the second; the input stays as it was."""
    x = (torch.randn(shape) * 4).to(dtype)
    before = x.clone()
    gate, up = x.double().chunk(2, -1)
    torch.testing.assert_close(
        silu_mul(x).double(), gate / (1 + (-gate).exp()) * up, rtol=tolerance, atol=tolerance
    )
    assert torch.equal(x, before)


@VERSIONS
def test_silu_mul_int8(silu_mul_int8) -> None:
    """Looked up, silu is as near as float16 is to the gate, and rows are off by half a level more."""
    sums = torch.randint(-(2**20), 2**20, (7, 123 * 2), dtype=torch.int32)
    product = Product(sums * (torch.rand(123 * 2) / 2**20), torch.rand(7, 1) * 8)
    gate, up = product.floats().double().chunk(2, -1)
    expected = gate / (1 + (-gate).exp()) * up
    rows = silu_mul_int8(product)
    assert rows.signed().dtype == torch.int8
    error = (numbers.floats(rows) - expected).abs()
    assert (error <= expected.abs().amax(-1, keepdim=True) * (0.51 / 127 + 2e-3)).all()


@VERSIONS
def test_gates_beyond_float16(silu_mul_int8) -> None:
    """A gate of any size counts as the greatest float16 at most, and one that is NaN is seen."""
    columns = torch.tensor([[1e6, 1], [-1e6, 1], [0, 1], [-1, 1]])
    tops = silu_mul_int8(Product(columns, torch.ones(4, 1))).tops
    torch.testing.assert_close(tops, torch.tensor([[65504.0], [1e-30], [1e-30], [0.2689]]), rtol=1e-3, atol=0)
    assert silu_mul_int8(Product(columns * torch.tensor([torch.nan, 1]), torch.ones(4, 1))).tops.isnan().all()


def test_gates_round_to_float16() -> None:
    """Every float16, every midpoint between two and its neighbours, and NaN, round as torch rounds them."""
    x = halves()
    assert len(x) > 6 * (1 << 15)
    expected = x.half()
    found = torch.tensor([int(compiled._to_half(each)) for each in x.numpy()], dtype=torch.int32)
    found = found.to(torch.uint16).view(torch.float16)
    assert torch.equal(found.isnan(), x.isnan())
    assert torch.equal(expected.isnan(), x.isnan())
    bits, own = (each[~x.isnan()].view(torch.int16) for each in (expected, found))
    assert torch.equal(bits, own)


def test_both_versions_of_every_gate() -> None:
    """A row for each of these gates, itself times its silu, has the same top and level in both versions."""
    x = halves()
    product = Product(torch.ones(len(x), 2), x[:, None].contiguous())
    rows = compiled.silu_mul_int8(product)
    assert same(rows, naive.silu_mul_int8(product))
    gates = x.half().double().clamp(-65504, 65504)
    expected = (gates / (1 + (-gates).exp())).float().mul_(x).abs_().clamp_min_(1e-30)
    torch.testing.assert_close(rows.tops[:, 0], expected, rtol=1e-6, atol=0, equal_nan=True)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 9), st.integers(1, 300), st.integers(1, 30), st.integers(0, 2**32))
def test_both_versions_give_the_same_bits(rows: int, width: int, octaves: int, seed: int) -> None:
    """Of few and many rows, none too, of any size, rows of zeros among them."""
    torch.manual_seed(seed)
    product = numbers.product(rows, 2 * width, octaves)
    found = compiled.silu_mul_int8(product)
    assert same(found, naive.silu_mul_int8(product))
    assert found.levels.shape == (rows, width)
    assert found.signed().ne(-128).all()


@VERSIONS
@pytest.mark.parametrize("kind", NOT_FINITE)
def test_a_row_does_not_see_its_neighbours(silu_mul_int8, kind: str) -> None:
    """A row whose scale is not finite says so in its top, and changes no bit of another."""
    columns, scales = numbers.product(4, 2 * 77, octaves=4)
    columns[1:3] = torch.rand(2, 2 * 77) + 1
    alone = silu_mul_int8(Product(columns[3:], scales[3:]))
    columns[0] = 0
    for row in (1, 2):
        numbers.spoil(scales, (row, 0), kind)
    rows = silu_mul_int8(Product(columns, scales))
    levels, tops = rows.signed(), rows.tops
    assert not levels[0].any()
    assert not tops[1:3].isfinite().any()
    assert same((levels[3:], tops[3:]), alone)
    assert levels.ne(-128).all()


def test_the_table_is_pinned() -> None:
    """Receipts depend on these bits."""
    table = silu_table(torch.device("cpu"))
    assert (
        hashlib.sha256(table[~table.isnan()].numpy().tobytes()).hexdigest()
        == "a7e0203be39977dd30d7f676820c58830f75c89915468a86a1b409b3b9a0f3ed"
    )
