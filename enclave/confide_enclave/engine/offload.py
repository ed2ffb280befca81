"""Pages that the cache of prefixes gave up, sealed for their tenant alone. Pure Python; knows no tensors.

Every tenant has a key of its own: random, made when its first page is sealed, in memory only, and overwritten with
the tenant's salt. Then what was sealed can be read by nobody, wherever a copy of it may be.
"""

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Final, NamedTuple, Protocol

import structlog

log = structlog.get_logger(__name__)

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
# Nonces are counted. Far under what ChaCha20-Poly1305 allows, and more than any tenant comes to.
MAX_PAGES_PER_KEY: Final = 1 << 32

_LABEL: Final = b"confide.kv-page.v1"


@dataclass(frozen=True)
class Named:
    """A page of the pool, and what it holds: the tenant's key for it and all tokens before, and its own ids."""

    key: bytes = field(repr=False)
    tokens: tuple[int, ...] = field(repr=False)
    page: int


class Box(NamedTuple):
    """Where a sealed page lies. The tag stays here, out of reach of whoever can write to that place."""

    slot: int
    nonce: bytes
    tag: bytes


class Memory(Protocol):
    """Slots outside the pool. `geometry` is 32 bytes that say how a page is laid out."""

    geometry: bytes

    def seal(
        self,
        key: bytearray,
        nonces: Sequence[bytes],
        contexts: Sequence[bytes],
        pages: Sequence[int],
        slots: Sequence[int],
    ) -> Sequence[bytes]:
        """Seal pages of the pool into slots; return the tags."""

    def open(self, key: bytearray, boxes: Sequence[Box], contexts: Sequence[bytes], pages: Sequence[int]) -> int:
        """Open into pages of the pool up to the first whose tag is not right; return how many that are."""

    def zero(self, slots: Sequence[int]) -> None: ...


@dataclass(eq=False)
class Vault:
    """One tenant's key, how many pages it has sealed, and where they lie by their keys, least recent first."""

    name: bytes
    key: bytearray = field(default_factory=bytearray, repr=False)
    sealed: int = 0
    boxes: OrderedDict[bytes, Box] = field(default_factory=OrderedDict, repr=False)


class Offload:
    """Keeps at most `tenant_slots` pages for one tenant and `slots` for all.

    What goes first is the least recent page of the same tenant, then those of tenants that were less recently
    there, never those of one that was there later. A page that was sealed stays so while it is also in the pool: it
    never changes, and need not be sealed twice. Whatever fails costs pages, which are computed again, and no
    answer.
    """

    def __init__(self, memory: Memory, tenant_slots: int, slots: int, random: Callable[[int], bytes]) -> None:
        self._memory, self._tenant_slots, self._random = memory, tenant_slots, random
        self._free = list(range(slots - 1, -1, -1))
        self.opened = 0
        self.refused = 0

    def put(self, vault: Vault, given: Sequence[Named], displaced: Iterable[Vault]) -> None:
        """Seal pages of the vault's tenant, the least recent first.

        displaced: whose pages may go for them, in this order; its own vault is the last.
        """
        self.touch(vault, [each.key for each in reversed(given) if each.key in vault.boxes])
        if not (fresh := [each for each in given if each.key not in vault.boxes]):
            return
        # Of a prompt its beginning came last: without it the rest is of no use.
        fresh = fresh[max(0, len(fresh) - self._tenant_slots) :]
        self._drop(vault, len(vault.boxes) + len(fresh) - self._tenant_slots)
        for other in displaced:
            self._drop(other, len(fresh) - len(self._free))
        if fresh := fresh[max(0, len(fresh) - len(self._free)) :]:
            self._seal(vault, fresh)

    def touch(self, vault: Vault, keys: Sequence[bytes]) -> None:
        """Make the pages most recent, the deepest of them the least so."""
        for key in reversed(keys):
            vault.boxes.move_to_end(key)

    def open(self, vault: Vault, wanted: Sequence[Named]) -> int:
        """Open what is wanted into the pages named with it, as far as it is here and whole; return how many."""
        found = list(takewhile(lambda each: each.key in vault.boxes, wanted))
        if not found:
            return 0
        boxes = [vault.boxes[each.key] for each in found]
        contexts = [self._context(vault, each) for each in found]
        try:
            opened = self._memory.open(vault.key, boxes, contexts, [each.page for each in found])
        except Exception as fault:  # noqa: BLE001 - computing the pages again needs none of this
            log.error("offload_failed", kind=type(fault).__name__, count=len(found))  # noqa: TRY400
            self._remove(vault, [each.key for each in found])
            return 0
        self.opened += opened
        if opened < len(found):
            self.refused += 1
            log.error("offload_refused", kind="bad_tag", count=1)
            self._remove(vault, [found[opened].key])
        return opened

    def forget(self, vault: Vault) -> None:
        """Overwrite the key, then what it sealed."""
        vault.key[:] = bytes(len(vault.key))
        vault.key, vault.sealed = bytearray(), 0
        self._drop(vault, len(vault.boxes))

    def _seal(self, vault: Vault, fresh: Sequence[Named]) -> None:
        if vault.sealed + len(fresh) > MAX_PAGES_PER_KEY:
            self.forget(vault)
        if not vault.key:
            vault.key[:] = self._random(KEY_BYTES)
        first, vault.sealed = vault.sealed, vault.sealed + len(fresh)
        nonces = [number.to_bytes(NONCE_BYTES, "big") for number in range(first, vault.sealed)]
        slots = [self._free.pop() for _ in fresh]
        contexts = [self._context(vault, each) for each in fresh]
        try:
            tags = self._memory.seal(vault.key, nonces, contexts, [each.page for each in fresh], slots)
        except Exception as fault:  # noqa: BLE001 - pages that were not sealed are computed again
            log.error("offload_failed", kind=type(fault).__name__, count=len(fresh))  # noqa: TRY400
            self._give_back(slots)
            return
        for each, slot, nonce, tag in zip(fresh, slots, nonces, tags, strict=True):
            vault.boxes[each.key] = Box(slot, nonce, tag)

    def _context(self, vault: Vault, page: Named) -> bytes:
        """Return what a sealed page is bound to: layout, tenant, all tokens before it, and its own."""
        return _LABEL + self._memory.geometry + vault.name + page.key + array("I", page.tokens).tobytes()

    def _drop(self, vault: Vault, count: int) -> None:
        """Let go of up to `count` of the least recent, none if it is negative."""
        self._remove(vault, list(islice(vault.boxes, max(0, count))))

    def _remove(self, vault: Vault, keys: Sequence[bytes]) -> None:
        self._give_back([vault.boxes.pop(key).slot for key in keys])

    def _give_back(self, slots: Sequence[int]) -> None:
        if slots:
            self._memory.zero(slots)
            self._free += slots
