"""Pages of earlier prompts, found again by the same tenant alone. Pure Python over integers; knows no accounts."""

import hashlib
import hmac
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from confide_enclave.engine.pages import PAGE_TOKENS, Pages

_ROOT: Final = bytes(32)


@dataclass(frozen=True)
class _Entry:
    page: int
    tokens: tuple[int, ...] = field(repr=False)


@dataclass(eq=False)
class _Tenant:
    """One salt's index: HMAC-SHA256(salt, key of the page before || token ids) to page, least recent first.

    A page's key is so bound to all tokens before it. `salt` is overwritten when the tenant is forgotten.
    """

    name: bytes
    salt: bytearray = field(repr=False)
    lasting: bool
    used_s: float
    readers: int = 0
    entries: OrderedDict[bytes, _Entry] = field(default_factory=OrderedDict, repr=False)
    gone: bool = False

    def key(self, parent: bytes, tokens: Sequence[int]) -> bytes:
        return hmac.digest(self.salt, parent + array("I", tokens).tobytes(), hashlib.sha256)


@dataclass(eq=False)
class Chain:
    """The keys of one sequence's first pages, as far as they were found or stored."""

    tenant: _Tenant
    keys: list[bytes] = field(default_factory=list, repr=False)

    def key(self, tokens: Sequence[int]) -> bytes:
        """Return the key of the next page."""
        return self.tenant.key(self.keys[-1] if self.keys else _ROOT, tokens)


class PrefixCache:
    """Holds full pages beyond the sequences that filled them, until somebody needs the room.

    A tenant is whoever sends one salt; it finds its own pages, those that the operator published, and no others.
    At most `tenant_pages` are held for one tenant and `total_pages` for all. What goes first is the least recent
    page of the same tenant; when the pool is full, that of the tenant which was least recently there: so tenants
    notice of one another how full the pool is, and nothing else. Not for several threads.
    """

    def __init__(self, pages: Pages, tenant_pages: int, total_pages: int) -> None:
        self._pages = pages
        self._tenant_pages, self._total_pages = tenant_pages, total_pages
        self._tenants: OrderedDict[bytes, _Tenant] = OrderedDict()  # by SHA-256 of the salt, least recent first
        self._published: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self._held = 0
        self._now_s = 0.0

    @property
    def held(self) -> int:
        """How many pages are held for tenants; those that are published not counted."""
        return self._held

    @property
    def keeps(self) -> bool:
        """Whether anything is held beyond the sequences that computed it."""
        return min(self._tenant_pages, self._total_pages) > 0

    def tick(self, now_s: float, idle_s: float) -> float | None:
        """Take note of the time; forget the tenants that have been away for `idle_s`.

        Return in how many seconds that will be due for the next of them, if there is one.
        """
        self._now_s = now_s
        away = [tenant for tenant in self._tenants.values() if not tenant.readers]
        for tenant in away:
            if (due_s := tenant.used_s + idle_s - now_s) > 0:
                return due_s
            self._forget(tenant)
        return None

    def open(self, salt: bytes, lasting: bool) -> Chain:
        """Return an empty chain for a sequence of the tenant.

        A tenant that is not `lasting`, because it cannot come back, is forgotten with its last sequence.
        """
        name = hashlib.sha256(salt).digest()
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant(name, bytearray(salt), lasting, self._now_s)
        tenant.readers += 1
        self._touch(tenant)
        return Chain(tenant)

    def close(self, chain: Chain) -> None:
        """Note that the chain's sequence has ended."""
        tenant = chain.tenant
        tenant.readers -= 1
        if tenant.gone:
            return
        if not tenant.lasting and not tenant.readers:
            self._forget(tenant)
            return
        self._refresh(chain)
        self._touch(tenant)

    def publish(self, ids: Sequence[int], pages: Sequence[int]) -> None:
        """Share a prefix's full pages with every tenant, for good: only what the operator declared public."""
        full = len(ids) // PAGE_TOKENS
        self._pages.share(pages[:full])
        self._published.append((tuple(ids[: full * PAGE_TOKENS]), tuple(pages[:full])))

    def match(self, chain: Chain, ids: Sequence[int]) -> list[int]:
        """Hold the cached pages with which `ids` begins for the caller, and return them.

        One id at least is left over: what follows from it is wanted. An entry must have the very token ids too.
        """
        public, found = self._public(ids), list[int]()
        for start in range(0, len(ids) - PAGE_TOKENS, PAGE_TOKENS):
            tokens = tuple(ids[start : start + PAGE_TOKENS])
            key = chain.key(tokens)
            if len(found) < len(public):
                found.append(public[len(found)])
            elif (entry := chain.tenant.entries.get(key)) is not None and entry.tokens == tokens:
                found.append(entry.page)
            else:
                break
            chain.keys.append(key)
        self._pages.share(found)
        self._refresh(chain)
        return found

    def store(self, chain: Chain, ids: Sequence[int], pages: Sequence[int], computed: int) -> None:
        """Hold the pages that have filled up; the first `computed` ids are in `pages`. What is there stays."""
        tenant, keys = chain.tenant, chain.keys
        while not tenant.gone and (start := len(keys) * PAGE_TOKENS) + PAGE_TOKENS <= computed:
            tokens, page = tuple(ids[start : start + PAGE_TOKENS]), pages[len(keys)]
            keys.append(chain.key(tokens))
            if keys[-1] not in tenant.entries and self._room(tenant):
                self._pages.cache(page)
                tenant.entries[keys[-1]] = _Entry(page, tokens)
                self._held += 1

    def evict(self, count: int) -> None:
        """Free `count` idle pages, or all (none if `count` is negative); the least recent tenant's first."""
        count = min(count, self._pages.idle)
        dropped: list[int] = []
        for tenant in self._tenants.values():
            if len(dropped) >= count:
                break
            dropped += self._drop_idle(tenant, count - len(dropped))
        self._pages.uncache(dropped)

    def forget(self, salt: bytes) -> None:
        """Let go of the tenant's pages and overwrite its salt; its running sequences store no more."""
        if (tenant := self._tenants.get(hashlib.sha256(salt).digest())) is not None:
            self._forget(tenant)

    def forget_all(self) -> None:
        for tenant in list(self._tenants.values()):
            self._forget(tenant)

    def _forget(self, tenant: _Tenant) -> None:
        del self._tenants[tenant.name]
        tenant.gone = True
        tenant.salt[:] = bytes(len(tenant.salt))
        self._held -= len(tenant.entries)
        self._pages.uncache([entry.page for entry in tenant.entries.values()])
        tenant.entries.clear()

    def _public(self, ids: Sequence[int]) -> tuple[int, ...]:
        matching = (pages for known, pages in self._published if tuple(ids[: len(known)]) == known)
        return max(matching, key=len, default=())

    def _touch(self, tenant: _Tenant) -> None:
        tenant.used_s = self._now_s
        self._tenants.move_to_end(tenant.name)

    def _refresh(self, chain: Chain) -> None:
        # The deepest page becomes the least recent: a page is of no use without those before it.
        for key in reversed(chain.keys):
            if key in chain.tenant.entries:
                chain.tenant.entries.move_to_end(key)

    def _room(self, tenant: _Tenant) -> bool:
        """Say if there is room for one more of the tenant's pages; for a lasting one idle ones go."""
        if tenant.lasting and self._pages.idle:
            if len(tenant.entries) >= self._tenant_pages:
                self._pages.uncache(self._drop_idle(tenant, 1))
            if self._held >= self._total_pages:
                self.evict(1)
        return len(tenant.entries) < self._tenant_pages and self._held < self._total_pages

    def _drop_idle(self, tenant: _Tenant, count: int) -> list[int]:
        """Forget up to `count` idle pages of the tenant, the least recent first; return them."""
        idle = (key for key, entry in tenant.entries.items() if self._pages.is_idle(entry.page))
        pages = [tenant.entries.pop(key).page for key in list(islice(idle, count))]
        self._held -= len(pages)
        return pages
