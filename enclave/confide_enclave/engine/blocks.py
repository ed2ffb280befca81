"""Cached keys and values. A block holds one sequence's context, and is zeroed before another may have it."""

import numpy as np
import torch
from torch import Tensor


class KvCache:
    """Keys and values of every layer: [layers, blocks, kv_heads, rows, head_dim] each.

    Memory becomes resident as rows are written, and is bounded by the shape. Unwritten rows are zero.
    """

    def __init__(
        self, layers: int, blocks: int, kv_heads: int, rows: int, head_dim: int, dtype: torch.dtype
    ) -> None:
        shape = (layers, blocks, kv_heads, rows, head_dim)
        self.keys, self.values = _lazy_zeros(shape, dtype), _lazy_zeros(shape, dtype)
        self.rows = rows
        self._written = [0] * blocks

    def store(self, layer: int, blocks: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write one row per token. blocks, positions: [n]; keys, values: [n, kv_heads, head_dim]."""
        self.keys[layer][blocks, :, positions] = keys
        self.values[layer][blocks, :, positions] = values

    def reserve(self, block: int, length: int) -> None:
        """Note that the block's first `length` rows may be written from now on."""
        self._written[block] = max(self._written[block], length)

    def wipe(self, block: int) -> None:
        """Zero whatever was written to the block."""
        self.keys[:, block, :, : self._written[block]].zero_()
        self.values[:, block, :, : self._written[block]].zero_()
        self._written[block] = 0


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    # numpy leaves zeroing to the kernel, page by page as it is touched; torch.zeros touches all of it at once.
    size = torch.Size(shape).numel() * dtype.itemsize
    return torch.from_numpy(np.zeros(size, np.uint8)).view(dtype).view(shape)
