"""Linear layers against float64."""

import pytest
import torch
from confide_kernels.gemm import linear


@pytest.mark.parametrize(("rows", "width", "out"), [(1, 1, 1), (5, 123, 77), (17, 576, 960)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_linear(rows: int, width: int, out: int, dtype: torch.dtype, tolerance: float) -> None:
    """The product is exact up to the rounding of its dtype."""
    x, weight = torch.randn(rows, width).to(dtype), (torch.randn(out, width) / width**0.5).to(dtype)
    expected = x.double() @ weight.double().T
    torch.testing.assert_close(linear(x, weight).double(), expected, rtol=tolerance, atol=tolerance)
