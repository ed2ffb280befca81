"""Attention against the definition in float64, head by head."""

import math

import pytest
import torch
from confide_kernels.attention import decode, prefill

TOLERANCE = [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]


def definition(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """One query row [heads, d] over all rows of keys and values [kv_heads, length, d]."""
    group = len(q) // len(keys)
    rows = []
    for head, row in enumerate(q.double()):
        scores = keys[head // group].double() @ row / math.sqrt(len(row))
        rows.append(torch.softmax(scores, 0) @ values[head // group].double())
    return torch.stack(rows)


@pytest.mark.parametrize(("count", "length"), [(1, 1), (5, 5), (3, 17), (63, 64)])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(1, 1, 2), (9, 3, 64), (4, 4, 10)])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
def test_prefill(count, length, heads, kv_heads, head_dim, dtype, tolerance) -> None:
    """Query i of a chunk sees exactly the rows up to its own."""
    q = torch.randn(count, heads, head_dim).to(dtype)
    keys, values = (torch.randn(kv_heads, length, head_dim).to(dtype) for _ in range(2))
    out = prefill(q, keys, values)
    assert out.shape == q.shape
    for i in range(count):
        end = length - count + i + 1
        expected = definition(q[i], keys[:, :end], values[:, :end])
        torch.testing.assert_close(out[i].double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("blocks", [[0], [3], [1, 2, 3], [0, 2, 5]])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(9, 3, 64), (2, 1, 6)])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
def test_decode(blocks, heads, kv_heads, head_dim, dtype, tolerance) -> None:
    """Each row sees its own block up to its own length, whether the blocks are neighbours or not."""
    lengths = [5 + 7 * i for i in range(len(blocks))]
    keys, values = (torch.zeros(6, kv_heads, 40, head_dim, dtype=dtype) for _ in range(2))
    for block, length in zip(blocks, lengths, strict=True):
        keys[block, :, :length] = torch.randn(kv_heads, length, head_dim)
        values[block, :, :length] = torch.randn(kv_heads, length, head_dim)
    q = torch.randn(len(blocks), heads, head_dim).to(dtype)
    out = decode(q, keys, values, torch.tensor(blocks), torch.tensor(lengths))
    for i, (block, length) in enumerate(zip(blocks, lengths, strict=True)):
        expected = definition(q[i], keys[block, :, :length], values[block, :, :length])
        torch.testing.assert_close(out[i].double(), expected, rtol=tolerance, atol=tolerance)


def test_decode_never_reads_other_blocks() -> None:
    """Whatever lies in blocks that are not named changes no bit of the result."""
    keys, values, q = torch.randn(4, 3, 20, 16), torch.randn(4, 3, 20, 16), torch.randn(2, 9, 16)
    arguments = torch.tensor([0, 3]), torch.tensor([4, 20])
    before = decode(q, keys, values, *arguments)
    keys[1:3], values[1:3] = 1e4, -1e4
    assert torch.equal(decode(q, keys, values, *arguments), before)
