"""RMS norm against its definition in float64, and its versions against each other."""

import pytest
import torch
from confide_kernels.gemm import Product
from confide_kernels.norm import add_rms_norm_int8, compiled, naive, rms_norm
from confide_kernels.norm.naive import head_norm_exact
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import numbers
from tests.fakes.numbers import NOT_FINITE, same

VERSIONS = pytest.mark.parametrize(
    "add_norm", [naive.add_rms_norm_int8, compiled.add_rms_norm_int8, add_rms_norm_int8]
)


def definition(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + epsilon).sqrt() * weight.double()


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 63), (5, 576)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_rms_norm(rows: int, width: int, dtype: torch.dtype, tolerance: float) -> None:
    """The norm is the definition's to the precision of the dtype."""
    x, weight = torch.randn(rows, width) * 7, torch.rand(width)
    before = x.clone()
    out = rms_norm(x, weight, 1e-5, dtype)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), definition(x, weight, 1e-5), rtol=tolerance, atol=tolerance)
    assert torch.equal(x, before)


def test_a_row_does_not_see_its_neighbours() -> None:
    """A row beside others has the same bits as alone."""
    x, weight = torch.randn(9, 576), torch.rand(576)
    assert torch.equal(rms_norm(x, weight, 1e-5, torch.float32)[4:5], rms_norm(x[4:5], weight, 1e-5, torch.float32))


@VERSIONS
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e6])
@pytest.mark.parametrize("adds", [True, False])
def test_add_rms_norm_int8(add_norm, size: float, adds: bool) -> None:
    """The sum stays in the residual; its norm in levels is the definition's, up to half a level of 127."""
    residual = torch.randn(5, 576) * size
    sums = torch.randint(-(2**20), 2**20, (5, 576), dtype=torch.int32)
    added = Product(sums * (torch.rand(576) / 2**20), torch.rand(5, 1) * size) if adds else None
    total = residual if added is None else residual + added.floats()
    total = total.clone()
    rows = add_norm(residual, added, 1e-5)
    assert torch.equal(residual, total)
    assert rows.signed().dtype == torch.int8
    expected = definition(total, torch.ones(576), 1e-5)
    error = numbers.floats(rows) - expected
    assert (error.abs() <= expected.abs().amax(-1, keepdim=True) * (0.51 / 127 + 1e-3)).all()


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(0, 9),
    width=st.integers(1, 600),
    octave=st.integers(-120, 100),
    adds=st.booleans(),
    epsilon=st.sampled_from([1e-6, 1e-5, 1e-2]),
    seed=st.integers(0, 2**32),
)
def test_both_versions_give_the_same_bits(
    rows: int, width: int, octave: int, adds: bool, epsilon: float, seed: int
) -> None:
    """Of few and many rows, none too, of any size, rows of zeros among them, with and without what is optional."""
    torch.manual_seed(seed)
    residual = torch.randn(rows, width) * 2.0**octave
    residual[torch.rand(rows) < 0.2] = 0
    added = numbers.product(rows, width, octaves=10) if adds else None
    other = residual.clone()
    found = compiled.add_rms_norm_int8(residual, added, epsilon)
    assert same(found, naive.add_rms_norm_int8(other, added, epsilon))
    assert same([residual], [other])
    assert found.levels.shape == (rows, width)
    assert found.tops.shape == (rows, 1)
    assert found.tops.isfinite().all()


@VERSIONS
@pytest.mark.parametrize("kind", NOT_FINITE)
def test_odd_rows(add_norm, kind: str) -> None:
    """Zeros give zeros; a row, or what is added to it, that is not finite shows in its top, and alters no other."""
    residual, added = torch.randn(6, 64), numbers.product(6, 64, octaves=4)
    added.columns[0], residual[0], added.columns[3:5] = 0, 0, 1
    alone = add_norm(residual[5:].clone(), added.rows(torch.tensor([5])), 1e-5)
    for row, column in ((1, 0), (2, 63)):
        numbers.spoil(residual, (row, column), kind)
    for row in (3, 4):
        numbers.spoil(added.tops, (row, 0), kind)
    rows = add_norm(residual, added, 1e-5)
    assert not numbers.floats(rows)[0].any()
    assert not rows.tops[1:5].isfinite().any()
    assert not residual[1, 0].isfinite()
    assert not residual[3].isfinite().any()
    assert same((rows.signed()[5:], rows.tops[5:]), alone)
    assert rows.signed().ne(-128).all()


def test_head_norm_exact() -> None:
    """Heads are normed one by one, to a millionth; a head of zeros stays zero."""
    x, weight = torch.randn(3, 4, 128) * 9, torch.rand(128)
    x[1, 2] = 0
    out = head_norm_exact(x, weight, 1e-6)
    torch.testing.assert_close(out.double(), definition(x, weight, 1e-6), rtol=1e-5, atol=1e-5)
    assert torch.equal(head_norm_exact(x[1:2, 1:2], weight, 1e-6), out[1:2, 1:2])


@pytest.mark.parametrize("width", [2, 64, 256, 1 << 12])
def test_a_heads_order_does_not_matter(width: int) -> None:
    """Nothing rounds as the squares are summed: a head in another order has the same bits, in that order."""
    x, weight, order = torch.randn(3, 2, width), torch.rand(width), torch.randperm(width)
    expected = head_norm_exact(x, weight, 1e-6)[..., order]
    assert torch.equal(head_norm_exact(x[..., order], weight[order], 1e-6), expected)
