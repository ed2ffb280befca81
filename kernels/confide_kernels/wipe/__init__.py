"""Zero rows of a cache before another sequence may have them, in every layer at once."""

from torch import Tensor

from confide_kernels.place import on_gpu, send
from confide_kernels.wipe import naive

__all__ = ["wipe"]


def wipe(data: Tensor, tops: Tensor, pages: Tensor, page_rows: int) -> None:
    """Zero pages of `page_rows` rows each.

    data: [layers, 2, rows, kv_heads, head_dim]; tops: [layers, 2, kv_heads, rows]; both contiguous. pages: [n]
    int64, where `data` is, or on the CPU; one that is out of range is an error, or on a GPU left out.
    """
    if on_gpu(data):
        from confide_kernels.wipe import triton

        return triton.wipe(data, tops, send(pages, data.device), page_rows)
    return naive.wipe(data, tops, pages, page_rows)
