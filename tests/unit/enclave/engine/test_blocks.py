"""The cache: rows go where they should, and wiping leaves nothing."""

import torch
from confide_enclave.engine.blocks import KvPool, context_rows
from confide_enclave.engine.pages import PAGE_TOKENS


def test_store_and_wipe() -> None:
    """A token's keys and values land in its row of each; wiping pages spares the others."""
    pool = KvPool(layers=2, pages=4, kv_heads=2, head_dim=4, dtype=torch.int8)
    assert not pool.data.count_nonzero() + pool.tops.count_nonzero()
    rows = torch.tensor([7, PAGE_TOKENS, 3 * PAGE_TOKENS + 1])
    data, tops = torch.randint(-127, 128, (3, 4, 4)).float(), torch.rand(3, 4)
    for layer in range(2):
        pool.store(layer, rows, data, tops)
    assert torch.equal(pool.data[1][0, rows].float(), data[:, :2])
    assert torch.equal(pool.data[0][1, rows].float(), data[:, 2:])
    assert torch.equal(pool.tops[1][0, :, rows].t(), tops[:, :2])
    assert torch.equal(pool.tops[1][1, :, rows].t(), tops[:, 2:])
    pool.store(0, slice(9, 12), data, tops)
    assert torch.equal(pool.data[0][1, 9:12].float(), data[:, 2:])
    pool.wipe([3, 1])
    assert not pool.data[:, :, PAGE_TOKENS:].count_nonzero() + pool.tops[..., PAGE_TOKENS:].count_nonzero()
    assert pool.data[:, :, :PAGE_TOKENS].count_nonzero()
    pool.wipe([0])
    assert not pool.data.count_nonzero() + pool.tops.count_nonzero()


def test_floats_have_no_scales() -> None:
    """Keys and values of fast mode are stored as they are."""
    pool = KvPool(layers=1, pages=1, kv_heads=1, head_dim=4, dtype=torch.bfloat16)
    data = torch.randn(1, 2, 4)
    pool.store(0, torch.tensor([3]), data, None)
    assert torch.equal(pool.data[0][:, 3, 0], data[0].bfloat16())


def test_context_rows() -> None:
    """A context in consecutive pages is a slice; otherwise its rows are listed."""
    assert context_rows([2, 3], 20) == slice(32, 52)
    assert context_rows([3, 1], 18).tolist() == [*range(48, 64), 16, 17]
