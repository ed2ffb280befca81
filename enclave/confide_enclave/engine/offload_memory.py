"""Memory of the host for pages of a pool, which reach it sealed: on a GPU they are sealed there."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from confide_kernels import seal
from confide_kernels.seal import Sealed
from confide_protocol.errors import ConfigError
from torch import Tensor

from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.offload import Box, Offload
from confide_enclave.engine.pages import PAGE_TOKENS

# What of a pool lies in the clear beside it at once, while it is sealed or opened.
STAGE_BYTES: Final = 1 << 24


class HostMemory:
    """A row of bytes for each slot. Becomes resident as it is written. Called from the thread that owns the pool.

    Sealing reads, and opening writes, in stream order with whatever else the thread does to the pool; both return
    when the host's memory is done with.
    """

    def __init__(self, pool: KvPool, slots: int) -> None:
        """Raises: ConfigError when there is not so much memory."""
        layers, sides, rows, kv_heads, _ = pool.data.shape
        pages = rows // PAGE_TOKENS
        # Of either, [numbers, pages, bytes]: a page is a column.
        self._parts = [pool.data.view(layers * sides, pages, -1).view(torch.uint8)]
        if pool.data.dtype == torch.int8:
            self._parts.append(pool.tops.view(layers * sides * kv_heads, pages, -1).view(torch.uint8))
        layout = [(part.shape[0], part.shape[2]) for part in self._parts]
        self.geometry = hashlib.sha256(f"{layout} {pool.data.dtype} {PAGE_TOKENS}".encode()).digest()
        size = sum(numbers * each for numbers, each in layout)
        staged = min(slots, max(1, STAGE_BYTES // size))
        self._stage = torch.zeros(staged, size, dtype=torch.uint8, device=pool.data.device)
        self._columns, start = list[Tensor](), 0
        for numbers, each in layout:
            self._columns.append(self._stage[:, start : start + numbers * each].view(staged, numbers, each))
            start += numbers * each
        try:
            self._data = torch.from_numpy(np.zeros((slots, size), np.uint8))
        except (MemoryError, ValueError):
            raise ConfigError("engine", "offload_tokens", f"takes {slots * size} bytes; lower it") from None

    def seal(
        self,
        key: bytearray,
        nonces: Sequence[bytes],
        contexts: Sequence[bytes],
        pages: Sequence[int],
        slots: Sequence[int],
    ) -> list[bytes]:
        tags: list[bytes] = []
        for first, last in self._batches(len(pages)):
            stage = self._stage[: last - first]
            try:
                self._copy(pages[first:last], to_stage=True)
                sealed = seal.seal(key, nonces[first:last], stage, contexts[first:last])
            finally:
                stage.zero_()
            for slot, row in zip(slots[first:last], sealed.data, strict=True):
                self._data[slot].copy_(row)
            tags += sealed.tags
        return tags

    def open(self, key: bytearray, boxes: Sequence[Box], contexts: Sequence[bytes], pages: Sequence[int]) -> int:
        for first, last in self._batches(len(pages)):
            stage, batch = self._stage[: last - first], boxes[first:last]
            data = self._data.index_select(0, torch.tensor([box.slot for box in batch]))
            sealed = Sealed(data, tuple(box.nonce for box in batch), tuple(box.tag for box in batch))
            try:
                good = seal.unseal(key, sealed, contexts[first:last], stage)
                count = (*good, False).index(False)
                self._copy(pages[first : first + count], to_stage=False)
            finally:
                stage.zero_()
            if count < last - first:
                return first + count
        return len(pages)

    def zero(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self._data[slot].zero_()

    def _batches(self, count: int) -> list[tuple[int, int]]:
        size = len(self._stage)
        return [(first, min(first + size, count)) for first in range(0, count, size)]

    def _copy(self, pages: Sequence[int], *, to_stage: bool) -> None:
        """Copy pages of the pool to the rows of the stage, or back."""
        for at, page in enumerate(pages):
            for staged, part in zip(self._columns, self._parts, strict=True):
                if to_stage:
                    staged[at].copy_(part[:, page])
                else:
                    part[:, page].copy_(staged[at])


def open_offload(pool: KvPool, limits: EngineLimits, random: Callable[[int], bytes]) -> Offload | None:
    """Make what the settings ask for beside a pool. `random` draws the keys. Raises: ConfigError."""
    slots = limits.offload_tokens // PAGE_TOKENS
    if not slots:
        return None
    return Offload(HostMemory(pool, slots), limits.tenant_offload_tokens // PAGE_TOKENS, slots, random)
