"""Memory for sealed pages that seals nothing, and sees to it that everything about sealing is right."""

from collections.abc import Sequence

from confide_enclave.engine.offload import Box
from confide_enclave.engine.pages import PAGE_TOKENS


class Slots:
    """What pages held, by slot. `rows` is the pool: what stands in each row."""

    geometry = b"g" * 32

    def __init__(self, rows: dict[int, object]) -> None:
        self.rows = rows
        self.slots: dict[int, tuple[bytes, bytes, bytes, list[object]]] = {}
        self.nonces: set[tuple[bytes, bytes]] = set()
        self.spoilt: set[int] = set()
        self.broken = False

    def seal(
        self,
        key: bytearray,
        nonces: Sequence[bytes],
        contexts: Sequence[bytes],
        pages: Sequence[int],
        slots: Sequence[int],
    ) -> list[bytes]:
        assert len(key) == 32
        for nonce, context, page, slot in zip(nonces, contexts, pages, slots, strict=True):
            assert (bytes(key), nonce) not in self.nonces
            assert slot not in self.slots
            self.nonces.add((bytes(key), nonce))
            if self.broken:
                raise RuntimeError
            held = [self.rows[page * PAGE_TOKENS + row] for row in range(PAGE_TOKENS)]
            self.slots[slot] = (bytes(key), nonce, context, held)
        return [bytes([slot]) for slot in slots]

    def open(self, key: bytearray, boxes: Sequence[Box], contexts: Sequence[bytes], pages: Sequence[int]) -> int:
        if self.broken:
            raise RuntimeError
        for count, (box, context, page) in enumerate(zip(boxes, contexts, pages, strict=True)):
            *sealed, held = self.slots[box.slot]
            assert box.tag == bytes([box.slot])
            assert sealed == [bytes(key), box.nonce, context]
            if box.slot in self.spoilt:
                return count
            for row, what in enumerate(held):
                assert page * PAGE_TOKENS + row not in self.rows
                self.rows[page * PAGE_TOKENS + row] = what
        return len(boxes)

    def zero(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self.slots.pop(slot, None)
            self.spoilt.discard(slot)
