"""The gated activation against float64."""

import pytest
import torch
from confide_kernels.activation import silu_mul


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
