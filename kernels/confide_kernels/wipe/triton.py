"""The same for GPUs: a page of a layer's keys or values to a program. In stream order, so nothing waits."""

from typing import Final

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.gpu import block_of, kernel

# Words of 4 bytes that a program writes at once.
_BLOCK: Final = 2048


def wipe(data: Tensor, tops: Tensor, pages: Tensor, page_rows: int) -> None:
    """As the definition; a page that is out of range is left out."""
    layers, two, rows, kv_heads, width = data.shape
    if not (data.is_contiguous() and tops.is_contiguous()):
        raise ValueError("the cache must be contiguous")
    page_bytes = page_rows * kv_heads * width * data.element_size()
    if page_bytes % 4 or rows % page_rows:
        raise ValueError("a cache is of whole pages, and a page of whole words of 4 bytes")
    _wipe[(len(pages), layers * two)](
        data.view(-1).view(torch.int32),
        tops,
        pages.contiguous(),
        rows // page_rows,
        rows * kv_heads * width * data.element_size() // 4,
        words=page_bytes // 4,
        page_rows=page_rows,
        kv_heads=kv_heads,
        rows=rows,
        rows_block=block_of(page_rows),
        heads_block=block_of(kv_heads),
        block=min(_BLOCK, block_of(page_bytes // 4)),
    )


@kernel
def _wipe(
    words_of: tl.tensor,
    tops: tl.tensor,
    pages: tl.tensor,
    count: tl.tensor,
    side_words: tl.tensor,
    rows: tl.tensor,
    words: tl.constexpr,
    page_rows: tl.constexpr,
    kv_heads: tl.constexpr,
    rows_block: tl.constexpr,
    heads_block: tl.constexpr,
    block: tl.constexpr,
) -> None:
    page, side = tl.load(pages + tl.program_id(0)).to(tl.int64), tl.program_id(1).to(tl.int64)
    if (page >= 0) & (page < count):
        start = words_of + side * side_words + page * words
        for first in range(0, words, block):
            j = first + tl.arange(0, block)
            tl.store(start + j, tl.zeros([block], tl.int32), j < words)
        head, row = tl.arange(0, heads_block)[:, None], tl.arange(0, rows_block)[None, :]
        at = tops + (side * kv_heads + head) * rows + page * page_rows + row
        tl.store(at, tl.zeros([heads_block, rows_block], tl.float32), (head < kv_heads) & (row < page_rows))
