"""The cache: rows go where they should, and wiping leaves nothing."""

import torch
from confide_enclave.engine.blocks import KvCache


def test_store_and_wipe() -> None:
    """A token's keys and values land in its block and row; wiping a block spares the others."""
    cache = KvCache(layers=2, blocks=3, kv_heads=2, rows=8, head_dim=4, dtype=torch.bfloat16)
    assert not cache.keys.count_nonzero()
    blocks, positions = torch.tensor([0, 2, 2]), torch.tensor([7, 0, 1])
    keys, values = torch.randn(3, 2, 4).bfloat16(), torch.randn(3, 2, 4).bfloat16()
    cache.reserve(0, 8)
    cache.reserve(2, 2)
    for layer in range(2):
        cache.store(layer, blocks, positions, keys, values)
    for i, (block, position) in enumerate(zip(blocks, positions, strict=True)):
        assert torch.equal(cache.keys[1, block, :, position], keys[i])
        assert torch.equal(cache.values[0, block, :, position], values[i])
    cache.wipe(2)
    assert not cache.keys[:, 2].count_nonzero() + cache.values[:, 2].count_nonzero()
    assert cache.keys[:, 0].count_nonzero()
    cache.wipe(0)
    assert not cache.keys.count_nonzero() + cache.values.count_nonzero()
