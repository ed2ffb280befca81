"""Pages of a GPU's pool are sealed there: what reaches the host's memory is what the definition would have made."""

from pathlib import Path

import pytest
import torch
from confide_enclave.engine import GenerationRequest, Sampling
from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.lane import Lane
from confide_enclave.engine.offload import Box, Offload
from confide_enclave.engine.offload_memory import HostMemory
from confide_enclave.engine.pages import PAGE_TOKENS, Pages
from confide_enclave.engine.prefix import PrefixCache
from confide_enclave.engine.torch_engine import TorchEngine
from confide_kernels import place, seal
from confide_kernels.seal import naive

from tests.fakes import gguf as fake

KEY = bytearray(range(32))
NONCES = [bytes(11) + bytes([number]) for number in range(3)]
CONTEXTS = [b"one", b"two", b"three"]


def make(lane: Lane, dtype: torch.dtype = torch.int8) -> tuple[KvPool, HostMemory]:
    pool = KvPool(2, 8, 2, 8, dtype, lane.device)
    pool.data.copy_(torch.randint(-127, 127, pool.data.shape, generator=torch.Generator().manual_seed(1)))
    pool.tops.copy_(torch.arange(1, pool.tops.numel() + 1).view_as(pool.tops))
    return pool, HostMemory(pool, 4)


def pages_of(pool: KvPool, pages: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = (torch.tensor(pages)[:, None] * PAGE_TOKENS + torch.arange(PAGE_TOKENS)).flatten()
    return pool.data.cpu()[:, :, rows], pool.tops.cpu()[..., rows]


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
def test_sealed_there(lane: Lane, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """By Triton's version, to the definition's bytes and tags; it comes back bit for bit, and no copy stays."""
    pool, memory = make(lane, dtype)
    plain, staged = [], memory._stage
    theirs = seal.seal

    def watched(key: bytearray, nonces: list[bytes], pages: torch.Tensor, contexts: list[bytes]) -> naive.Sealed:
        assert place.on_gpu(pages)
        plain.append(pages.cpu().clone())
        return theirs(key, nonces, pages, contexts)

    monkeypatch.setattr(seal, "seal", watched)
    before = pages_of(pool, [6, 0, 3])
    tags = memory.seal(KEY, NONCES, CONTEXTS, [6, 0, 3], [2, 0, 1])
    expected = naive.seal(KEY, NONCES, torch.cat(plain), CONTEXTS)
    assert torch.equal(memory._data[[2, 0, 1]], expected.data)
    assert tuple(tags) == expected.tags
    assert not staged.any()
    pool.wipe(range(8))
    boxes = [Box(*box) for box in zip((2, 0, 1), NONCES, tags, strict=True)]
    memory._data[1, 5] ^= 4
    assert memory.open(KEY, boxes, CONTEXTS, [1, 2, 7]) == 2
    data, tops = pages_of(pool, [1, 2])
    assert torch.equal(data, before[0][:, :, : 2 * PAGE_TOKENS])
    assert dtype != torch.int8 or torch.equal(tops, before[1][..., : 2 * PAGE_TOKENS])
    assert not pages_of(pool, [0, 3, 4, 5, 6, 7])[0].any()
    assert not staged.any()


def test_wiped_after_it_was_sealed(lane: Lane) -> None:
    """What the cache gives up is sealed before its page is wiped, and opened before anybody writes there."""
    pool, memory = make(lane)
    before = pages_of(pool, [0, 1])
    pages = Pages(8, pool.wipe)
    cache = PrefixCache(pages, 4, 4)
    cache.offload = Offload(memory, 4, 4, lambda count: bytes(range(count)))
    ids = list(range(2 * PAGE_TOKENS + 1))
    for known in (0, 2):
        chain = cache.open(b"a" * 32, lasting=True)
        held = cache.match(chain, ids) or pages.take(3)
        if not known:
            assert held == [0, 1, 2]
        cache.restore(chain, held)
        assert len(chain.keys) == known
        cache.store(chain, ids, held, len(ids))
        assert torch.equal(pages_of(pool, held[:2])[0], before[0])
        pages.release(held)
        cache.close(chain)
        cache.evict(8)
        assert not pages_of(pool, [0, 1, 2])[0].any()
    cache.forget_all()
    assert not memory._data.any()


@pytest.mark.anyio
async def test_an_answer_through_sealed_pages(lane: Lane, tmp_path: Path) -> None:
    """A prompt whose page was given up, sealed and opened again is answered as it was the first time."""
    path = tmp_path / "toy.gguf"
    path.write_bytes(fake.toy_llama(5))
    tight = {"max_sequences": 1, "context_tokens": 32, "prefill_chunk_tokens": 32, "offload_tokens": 64}
    engine = TorchEngine.load(path, "toy", EngineLimits(device="cuda", speculate="off", threads=1, **tight))
    offload = engine._prefixes.offload
    assert offload is not None

    async def ask(prompt: str, salt: bytes, *, lasts: bool) -> list[str]:
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=1, seed=1, logprobs=2)
        request = GenerationRequest(prompt, sampling, salt, cache_lasts=lasts)
        return [repr((delta.logprobs, delta.text)) async for delta in engine.generate(request)]

    try:
        first = await ask("abcdefghijklmnopqr", b"a" * 32, lasts=True)
        await ask("zqwx" * 6, bytes(32), lasts=False)
        assert await ask("abcdefghijklmnopqr", b"a" * 32, lasts=True) == first
        assert (offload.opened, offload.refused) == (1, 0)
    finally:
        await engine.close()
