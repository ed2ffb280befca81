"""Sealed pages in the host's memory: nothing of them can be read there, and what was changed is not opened."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch
from confide_enclave.engine import offload_memory
from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.offload import Box
from confide_enclave.engine.offload_memory import HostMemory, open_offload
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_protocol.errors import ConfigError

KEY = bytearray(range(32))
CANARY = bytes(range(100, 116))


def make(dtype: torch.dtype = torch.int8, pages: int = 6, slots: int = 4) -> tuple[KvPool, HostMemory]:
    """Make a pool full of canaries, and memory for it."""
    pool = KvPool(layers=3, pages=pages, kv_heads=2, head_dim=16, dtype=dtype)
    canary = torch.frombuffer(bytearray(CANARY), dtype=torch.int8)
    pool.data.copy_(canary.to(dtype))
    pool.tops.copy_(torch.arange(pool.tops.numel(), dtype=torch.float32).view_as(pool.tops) + 1)
    return pool, HostMemory(pool, slots)


def seal(memory: HostMemory, pages: Sequence[int], slots: Sequence[int], first: int = 0) -> list[Box]:
    nonces = [number.to_bytes(12, "big") for number in range(first, first + len(pages))]
    tags = memory.seal(KEY, nonces, contexts(pages), pages, slots)
    return [Box(*box) for box in zip(slots, nonces, tags, strict=True)]


def contexts(pages: Sequence[int]) -> list[bytes]:
    return [b"page %d" % page for page in pages]


def page_of(pool: KvPool, page: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = slice(page * PAGE_TOKENS, (page + 1) * PAGE_TOKENS)
    return pool.data[:, :, rows].clone(), pool.tops[..., rows].clone()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stage_bytes", [1, 1 << 20])
def test_a_page_comes_back_bit_for_bit(dtype: torch.dtype, stage_bytes: int, monkeypatch) -> None:
    """Into any page, all that the model reads there, whatever its dtype; nothing else in the pool changes."""
    monkeypatch.setattr(offload_memory, "STAGE_BYTES", stage_bytes)
    pool, memory = make(dtype)
    pool.data.view(torch.uint8).random_(255, generator=torch.Generator().manual_seed(3))
    sealed = [page_of(pool, page) for page in (4, 1, 2)]
    boxes = seal(memory, [4, 1, 2], [3, 0, 2])
    pool.wipe([4, 1, 2])
    pool.data[:, :, : 6 * PAGE_TOKENS : 7] += 1
    before = pool.data.clone(), pool.tops.clone()
    assert memory.open(KEY, boxes, contexts([4, 1, 2]), [1, 5, 3]) == 3
    for page, (data, tops) in zip((1, 5, 3), sealed, strict=True):
        same = page_of(pool, page)
        assert torch.equal(same[0].view(torch.uint8), data.view(torch.uint8))
        assert dtype != torch.int8 or torch.equal(same[1], tops)
    for page in (0, 2, 4):
        rows = slice(page * PAGE_TOKENS, (page + 1) * PAGE_TOKENS)
        assert torch.equal(pool.data[:, :, rows].view(torch.uint8), before[0][:, :, rows].view(torch.uint8))
        assert torch.equal(pool.tops[..., rows], before[1][..., rows])


def test_nothing_in_the_clear_stays_beside_the_pool() -> None:
    """No canary in the host's memory; the stage is zero, after sealing, opening, and a fault of either."""
    pool, memory = make()
    assert CANARY in pool.data.numpy().tobytes()
    boxes = seal(memory, [0, 1, 2, 3], [0, 1, 2, 3])
    held = memory._data.numpy().tobytes()
    assert len(held) == 4 * 3 * 2 * PAGE_TOKENS * 2 * (16 + 4)
    assert CANARY[:4] not in held
    assert pool.tops[0, 0, 0, :PAGE_TOKENS].numpy().tobytes()[:8] not in held
    assert not memory._stage.any()
    assert memory.open(KEY, boxes, contexts([0, 1, 2, 3]), [5, 4, 3, 2]) == 4
    assert not memory._stage.any()
    with pytest.raises(ValueError, match="32 bytes"):
        memory.seal(bytearray(31), [bytes(12)], [b""], [0], [0])
    with pytest.raises(ValueError, match="32 bytes"):
        memory.open(bytearray(31), boxes[:1], [b""], [0])
    assert not memory._stage.any()


def test_equal_pages_do_not_look_alike() -> None:
    """The same keys and values, sealed again, are other bytes: whoever reads the memory cannot compare prompts."""
    pool, memory = make()
    pool.tops.fill_(1)
    seal(memory, [0, 1], [0, 1])
    seal(memory, [0], [2], first=2)
    rows = {bytes(row) for row in memory._data.numpy()}
    assert len(rows) == 4


@pytest.mark.parametrize("fault", ["data", "tag", "swap", "old", "context"])
@pytest.mark.parametrize("stage_bytes", [1, 1 << 20])
def test_what_was_changed_is_not_opened(fault: str, stage_bytes: int, monkeypatch) -> None:
    """Nor is what comes after it; the pool's page stays as it was."""
    monkeypatch.setattr(offload_memory, "STAGE_BYTES", stage_bytes)
    pool, memory = make()
    old = memory._data.clone()
    seal(memory, [4], [1], first=9)
    old[1] = memory._data[1]
    boxes, named = seal(memory, [0, 1, 2], [0, 1, 2]), contexts([0, 1, 2])
    match fault:
        case "data":
            memory._data[1, Random(4).randrange(memory._data.shape[1])] ^= 1 << Random(5).randrange(8)
        case "tag":
            boxes[1] = boxes[1]._replace(tag=bytes([boxes[1].tag[0] ^ 1]) + boxes[1].tag[1:])
        case "swap":
            memory._data[[1, 2]] = memory._data[[2, 1]]
        case "old":
            memory._data[1] = old[1]
        case "context":
            named[1] = b"page 7"
    pool.wipe([3, 4, 5])
    assert memory.open(KEY, boxes, named, [3, 4, 5]) == 1
    assert torch.equal(page_of(pool, 3)[0], page_of(pool, 0)[0])
    for page in (4, 5):
        assert not page_of(pool, page)[0].any()
        assert not page_of(pool, page)[1].any()


def test_zeroing() -> None:
    """Slots that are given back are zero; the others stay."""
    _, memory = make()
    boxes = seal(memory, [0, 1, 2], [0, 1, 2])
    memory.zero([0, 2])
    assert [bool(row.any()) for row in memory._data] == [False, True, False, False]
    assert memory.open(KEY, boxes[1:2], contexts([1]), [5]) == 1


def test_the_layout_is_named() -> None:
    """Memory of one pool does not pass for that of another: layers, heads, their width, numbers."""
    found = {make(dtype)[1].geometry for dtype in (torch.int8, torch.float32, torch.bfloat16)}
    for layers, heads, width in ((2, 2, 16), (3, 4, 16), (3, 2, 32), (3, 4, 8)):
        found.add(HostMemory(KvPool(layers, 2, heads, width, torch.int8), 1).geometry)
    assert len(found) == 7
    assert all(len(each) == 32 for each in found)


def test_from_settings() -> None:
    """None is opened unless asked for; memory that the machine has not is a fault of the settings."""
    pool, _ = make()
    assert open_offload(pool, EngineLimits(), bytes) is None
    assert open_offload(pool, EngineLimits(offload_tokens=PAGE_TOKENS - 1), bytes) is None
    assert open_offload(pool, EngineLimits(offload_tokens=100), bytes) is not None


def test_too_much_memory(monkeypatch) -> None:
    """It says how much it would have taken."""

    def refuse(*_: object) -> None:
        raise MemoryError

    pool, _ = make()
    monkeypatch.setattr(np, "zeros", refuse)
    with pytest.raises(ConfigError, match=r"offload_tokens: takes 23040 bytes; lower it"):
        open_offload(pool, EngineLimits(offload_tokens=100), bytes)


@pytest.mark.parametrize(
    "settings", [{"prefix_tokens": 0}, {"tenant_prefix_tokens": 0}, {"tenant_offload_tokens": 0}]
)
def test_settings_that_do_not_fit_together(settings: dict[str, int]) -> None:
    """Without a cache of prefixes nothing is given up that could be sealed."""
    with pytest.raises(ValueError, match="offload_tokens"):
        EngineLimits(offload_tokens=4096, **settings)
    EngineLimits(**settings)
