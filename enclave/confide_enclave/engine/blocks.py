"""Cached keys and values, in pages that are zeroed before another sequence may have them."""

import mmap
from collections.abc import Sequence

import torch
from confide_kernels import wipe
from confide_kernels.place import on_gpu
from confide_kernels.rope import Cache
from torch import Tensor

from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.weights import CPU, DecoderWeights


class KvPool:
    """Keys and values of every layer, a row per token: [layers, 2, rows, kv_heads, head_dim].

    Each head of an int8 row has a top, what 127 levels stand for: [layers, 2, kv_heads, rows] float32. A page is
    PAGE_TOKENS rows on end.
    On a CPU memory becomes resident as rows are written, and is bounded by the shape. Unwritten rows are zero.
    """

    def __init__(
        self,
        layers: int,
        pages: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device = CPU,
    ) -> None:
        rows = pages * PAGE_TOKENS
        self.data = _zeros((layers, 2, rows, kv_heads, head_dim), dtype, device)
        self.tops = _zeros((layers, 2, kv_heads, rows), torch.float32, device)
        self.layers = [Cache(data, tops) for data, tops in zip(self.data, self.tops, strict=True)]

    @classmethod
    def of(cls, weights: DecoderWeights, pages: int) -> "KvPool":
        """Make a pool beside a decoder's weights: of levels where it computes exactly, else of its own floats."""
        config, dtype = weights.config, torch.int8 if weights.exact else weights.dtype
        device = weights.embedding.rows.device
        return cls(config.layers, pages, config.kv_heads, config.head_dim, dtype, device)

    def wipe(self, pages: Sequence[int]) -> None:
        """Zero the pages in every layer.

        On a GPU this returns before it is done. Whatever reads or writes them later comes later in the same stream,
        and so does it after; nothing in between can tell.
        """
        if on_gpu(self.data):
            wipe.wipe(self.data, self.tops, torch.tensor(pages, dtype=torch.int64), PAGE_TOKENS)
            return
        for first, last in _runs(pages):
            rows = slice(first * PAGE_TOKENS, last * PAGE_TOKENS)
            self.data[:, :, rows].zero_()
            self.tops[..., rows].zero_()


def context_rows(pages: Sequence[int], context: int) -> slice | Tensor:
    """Return the pool's rows of a sequence's first `context` tokens: a slice where its pages follow one another."""
    if list(pages) == list(range(pages[0], pages[0] + len(pages))):
        return slice(pages[0] * PAGE_TOKENS, pages[0] * PAGE_TOKENS + context)
    starts = torch.tensor(pages)[:, None] * PAGE_TOKENS
    return (starts + torch.arange(PAGE_TOKENS)).flatten()[:context]


def _runs(pages: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for page in sorted(pages):
        if runs and runs[-1][1] == page:
            runs[-1] = (runs[-1][0], page + 1)
        else:
            runs.append((page, page + 1))
    return runs


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _lazy_zeros(shape, dtype) if device.type == "cpu" else torch.zeros(shape, dtype=dtype, device=device)


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    # The kernel zeroes pages as they are touched; torch.zeros touches all at once, numpy asks for pages of 2 MiB.
    memory = mmap.mmap(-1, torch.Size(shape).numel() * dtype.itemsize)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
