"""The gated activation against float64."""

import hashlib

import pytest
import torch
from confide_kernels.activation import silu_mul, silu_mul_exact, silu_table


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


def test_silu_mul_exact() -> None:
    """Looked up, silu is as near as float16 is to the gate; beyond float16 it stays finite, and NaN is NaN."""
    x = torch.randn(7, 123 * 2) * 4
    gate, up = x.double().chunk(2, -1)
    expected = gate / (1 + (-gate).exp()) * up
    torch.testing.assert_close(silu_mul_exact(x).double(), expected, rtol=2e-3, atol=1e-3)
    ends = silu_mul_exact(torch.tensor([[1e6, -1e6, torch.nan, 0, 1, 1, 1, 1]]))
    torch.testing.assert_close(ends, torch.tensor([[65504, 0, torch.nan, 0]]), equal_nan=True)


def test_the_table_is_pinned() -> None:
    """Receipts depend on these bits."""
    table = silu_table(torch.device("cpu"))
    numbers = table[~table.isnan()]
    assert (
        hashlib.sha256(numbers.numpy().tobytes()).hexdigest()
        == "a7e0203be39977dd30d7f676820c58830f75c89915468a86a1b409b3b9a0f3ed"
    )
