"""RMS norm against its definition in float64."""

import pytest
import torch
from confide_kernels.norm import add_rms_norm, rms_norm


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
