"""RMS norm against its definition in float64."""

import pytest
import torch
from confide_kernels.norm import add_rms_norm, head_norm_exact, rms_norm, rms_norm_int8


def definition(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + epsilon).sqrt() * weight.double()


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 63), (5, 576)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_rms_norm(rows: int, width: int, dtype: torch.dtype, tolerance: float) -> None:
    """The norm is the definition's to the precision of the dtype."""
    x, weight = torch.randn(rows, width) * 7, torch.rand(width)
    out = rms_norm(x, weight, 1e-5, dtype)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), definition(x, weight, 1e-5), rtol=tolerance, atol=tolerance)


def test_add_rms_norm_updates_the_residual() -> None:
    """The sum stays in the residual in float32, and its norm comes back."""
    residual, x, weight = torch.randn(4, 33), torch.randn(4, 33).bfloat16(), torch.rand(33)
    total = residual + x.float()
    out = add_rms_norm(x, residual, weight, 1e-5, torch.float32)
    assert torch.equal(residual, total)
    torch.testing.assert_close(out.double(), definition(total, weight, 1e-5), rtol=1e-6, atol=1e-6)


def test_a_row_does_not_see_its_neighbours() -> None:
    """A row beside others has the same bits as alone."""
    x, weight = torch.randn(9, 576), torch.rand(576)
    assert torch.equal(rms_norm(x, weight, 1e-5, torch.float32)[4:5], rms_norm(x[4:5], weight, 1e-5, torch.float32))


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e6])
@pytest.mark.parametrize("weighted", [True, False])
def test_rms_norm_int8(size: float, weighted: bool) -> None:
    """The norm in levels is the definition's, up to half a level of 127."""
    x, weight = torch.randn(5, 576) * size, torch.rand(576) if weighted else torch.ones(576)
    levels, tops = rms_norm_int8(x, 1e-5, weight if weighted else None)
    assert levels.dtype == torch.int8
    expected = definition(x, weight, 1e-5)
    error = (levels * (tops / 127)).double() - expected
    assert (error.abs() <= expected.abs().amax(-1, keepdim=True) * (0.51 / 127 + 1e-3)).all()


def test_rms_norm_int8_of_odd_rows() -> None:
    """Zeros give zeros; a row that is not finite says so in its scale, and changes no other."""
    x = torch.randn(4, 64)
    alone = rms_norm_int8(x[3:], 1e-5)
    x[0], x[1, 5], x[2, 9] = 0, torch.nan, torch.inf
    levels, tops = rms_norm_int8(x, 1e-5)
    assert not (levels[0] * tops[0]).any()
    assert not ((levels * tops)[1:3].sum(1)).isfinite().any()
    assert torch.equal(levels[3:], alone[0])
    assert torch.equal(tops[3:], alone[1])


def test_head_norm_exact() -> None:
    """Heads are normed one by one, to a millionth; a head of zeros stays zero."""
    x, weight = torch.randn(3, 4, 128) * 9, torch.rand(128)
    x[1, 2] = 0
    out = head_norm_exact(x, weight, 1e-6)
    torch.testing.assert_close(out.double(), definition(x, weight, 1e-6), rtol=1e-5, atol=1e-5)
    assert torch.equal(head_norm_exact(x[1:2, 1:2], weight, 1e-6), out[1:2, 1:2])
