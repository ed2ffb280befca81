"""Rotary embedding against complex multiplication in float64."""

import pytest
import torch
from confide_kernels.rope import rotate, table


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 2), (3, 10), (9, 64)])
def test_rotate(heads: int, head_dim: int) -> None:
    """Each pair (i, i + d/2) turns by position * base^(-2i/d), as complex numbers do."""
    positions, base = torch.tensor([0, 1, 7, 500]), 1e5
    x = torch.randn(len(positions), heads, head_dim)
    angle = positions[:, None].double() * base ** (-torch.arange(0, head_dim, 2).double() / head_dim)
    real, imaginary = x.double().chunk(2, -1)
    turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angle), angle)[:, None]
    expected = torch.cat([turned.real, turned.imag], -1)
    out = rotate(x, table(501, head_dim, base)[positions])
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_rotate_keeps_dtype_and_input() -> None:
    """bfloat16 in, bfloat16 out, and a strided view is read without being changed."""
    qkv = torch.randn(3, 8, 16).bfloat16()
    before = qkv.clone()
    assert rotate(qkv[:, :5], table(3, 16, 1e4)).dtype == torch.bfloat16
    assert torch.equal(qkv, before)
