"""The cache: its layers are views of it, and wiping leaves nothing."""

import pytest
import torch
from confide_enclave.engine.blocks import KvPool, context_rows
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.weights import load_weights

from tests.fakes import decoder as toy
from tests.fakes import gguf as fake


def test_store_and_wipe() -> None:
    """What a layer stores in its rows is the pool's; wiping pages spares the others."""
    pool = KvPool(layers=2, pages=4, kv_heads=2, head_dim=4, dtype=torch.int8)
    assert not pool.data.count_nonzero() + pool.tops.count_nonzero()
    rows = torch.tensor([7, PAGE_TOKENS, 3 * PAGE_TOKENS + 1])
    data, tops = torch.randint(1, 128, (2, 2, 3, 2, 4), dtype=torch.int8), torch.rand(2, 2, 2, 3) + 0.1
    for number, layer in enumerate(pool.layers):
        layer.data[:, rows], layer.tops[..., rows] = data[number], tops[number]
    assert torch.equal(pool.data[:, :, rows], data)
    assert torch.equal(pool.tops[..., rows], tops)
    assert (pool.data.count_nonzero(), pool.tops.count_nonzero()) == (data.numel(), tops.numel())
    pool.wipe([3, 1])
    assert not pool.data[:, :, PAGE_TOKENS:].count_nonzero() + pool.tops[..., PAGE_TOKENS:].count_nonzero()
    assert torch.equal(pool.data[:, :, 7], data[:, :, 0])
    assert torch.equal(pool.tops[..., 7], tops[..., 0])
    pool.wipe([0])
    assert not pool.data.count_nonzero() + pool.tops.count_nonzero()


def test_a_layer_stores_in_one_piece() -> None:
    """Keys and values of a layer, and their tops, lie row after row, as the kernels ask."""
    for layer in KvPool(layers=3, pages=2, kv_heads=2, head_dim=4, dtype=torch.int8).layers:
        assert layer.data.shape == (2, 2 * PAGE_TOKENS, 2, 4)
        assert layer.tops.shape == (2, 2, 2 * PAGE_TOKENS)
        assert layer.data.is_contiguous()
        assert layer.tops.is_contiguous()


@pytest.mark.parametrize(
    ("scheme", "dtype", "stored"),
    [
        ("w8a8", torch.bfloat16, torch.int8),
        ("w8a16", torch.bfloat16, torch.bfloat16),
        ("w4a16", torch.float32, torch.float32),
        ("none", torch.float32, torch.float32),
    ],
)
def test_a_decoders_pool(scheme: str, dtype: torch.dtype, stored: torch.dtype) -> None:
    """Levels where it computes exactly, else its own floats, stored as they are; one row per token."""
    pool = KvPool.of(load_weights(toy.model(toy.tensors(), scheme), dtype), pages=3)
    assert pool.data.dtype == stored
    assert pool.data.shape == (fake.LAYERS, 2, 3 * PAGE_TOKENS, fake.KV_HEADS, toy.HEAD_DIM)
    assert pool.tops.shape == (fake.LAYERS, 2, fake.KV_HEADS, 3 * PAGE_TOKENS)


def test_context_rows() -> None:
    """A context in consecutive pages is a slice; otherwise its rows are listed."""
    assert context_rows([2, 3], 20) == slice(32, 52)
    assert context_rows([3, 1], 18).tolist() == [*range(48, 64), 16, 17]
