"""Rotary embedding against complex multiplication in float64."""

import hashlib

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
    out = rotate(x.clone(), table(501, head_dim, base)[positions])
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_rotate_is_in_place() -> None:
    """A strided view is turned where it lies, and its neighbours stay."""
    qkv = torch.randn(3, 8, 16)
    before, turns = qkv.clone(), table(3, 16, 1e4)
    rotate(qkv[:, :5], turns)
    assert torch.equal(qkv[:, :5], rotate(before[:, :5].contiguous(), turns))
    assert torch.equal(qkv[:, 5:], before[:, 5:])


def test_the_table_is_pinned() -> None:
    """Receipts depend on these bits; a longer table starts with the same."""
    turns = table(1_000, 64, 1e5)
    assert torch.equal(table(3_000, 64, 1e5)[:1_000], turns)
    assert (
        hashlib.sha256(turns.numpy().tobytes()).hexdigest()
        == "c5cf6587649d152c7654766e1720a743ab3eec0a80da246eacdadaaf83d2f86f"
    )
