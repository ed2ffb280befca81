"""Pages of earlier prompts, found again by the same tenant alone. Pure Python over integers; knows no accounts."""

import hashlib
import hmac
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from confide_enclave.engine.offload import Named, Offload, Vault
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

    vault: Vault
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
    """The keys of one sequence's first pages, as far as they were found or stored.

    `sealed`: keys and token ids of the pages after those, as far as they are not in the pool but were sealed.
    """

    tenant: _Tenant
    keys: list[bytes] = field(default_factory=list, repr=False)
    sealed: list[tuple[bytes, tuple[int, ...]]] = field(default_factory=list, repr=False)

    def key(self, tokens: Sequence[int]) -> bytes:
        """Return the key of the next page."""
        return self.tenant.key(self.keys[-1] if self.keys else _ROOT, tokens)


class PrefixCache:
    """Holds full pages beyond the sequences that filled them, until somebody needs the room.

    A tenant is whoever sends one salt; it finds its own pages, those that the operator published, and no others.
    At most `tenant_pages` are held for one tenant and `total_pages` for all. What goes first is the least recent
    page of the same tenant; when the pool is full, that of the tenant which was least recently there: so tenants
    notice of one another how full the pool is, and nothing else. What goes is sealed for its tenant where there is
    an `offload`, and opened again when that tenant's prompt begins so. Not for several threads.
    """

    offload: Offload | None = None

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
            self._forget([tenant])
        return None

    def open(self, salt: bytes, lasting: bool) -> Chain:
        """Return an empty chain for a sequence of the tenant.

        A tenant that is not `lasting`, because it cannot come back, is forgotten with its last sequence.
        """
        name = hashlib.sha256(salt).digest()
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant(Vault(name), bytearray(salt), lasting, self._now_s)
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
            self._forget([tenant])
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
        if self.offload is not None:
            chain.sealed = self._sealed(chain, ids)
            self.offload.touch(chain.tenant.vault, [key for key, _ in chain.sealed])
        return found

    def restore(self, chain: Chain, pages: Sequence[int]) -> None:
        """Open what `match` found sealed into `pages`, the sequence's own, and hold it for the tenant.

        The chain's keys say how many of the pages are now as they should be.
        """
        if self.offload is None:
            return
        first, tenant = len(chain.keys), chain.tenant
        wanted = [Named(*sealed, page) for sealed, page in zip(chain.sealed, pages[first:], strict=False)]
        opened = wanted[: self.offload.open(tenant.vault, wanted)]
        chain.keys += [each.key for each in opened]
        chain.sealed.clear()
        self._hold(tenant, opened)

    def store(self, chain: Chain, ids: Sequence[int], pages: Sequence[int], computed: int) -> None:
        """Hold the pages that have filled up; the first `computed` ids are in `pages`. What is there stays."""
        filled: list[Named] = []
        while not chain.tenant.gone and (start := len(chain.keys) * PAGE_TOKENS) + PAGE_TOKENS <= computed:
            tokens, page = tuple(ids[start : start + PAGE_TOKENS]), pages[len(chain.keys)]
            chain.keys.append(chain.key(tokens))
            filled.append(Named(chain.keys[-1], tokens, page))
        self._hold(chain.tenant, filled)

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
            self._forget([tenant])

    def forget_all(self) -> None:
        self._forget(list(self._tenants.values()))

    def _forget(self, tenants: Sequence[_Tenant]) -> None:
        pages: list[int] = []
        for tenant in tenants:
            del self._tenants[tenant.vault.name]
            tenant.gone = True
            tenant.salt[:] = bytes(len(tenant.salt))
            if self.offload is not None:
                self.offload.forget(tenant.vault)
            pages += [entry.page for entry in tenant.entries.values()]
            tenant.entries.clear()
        self._held -= len(pages)
        # Last: a device that is lost cannot wipe, and keeps no key from being erased.
        self._pages.uncache(pages)

    def _public(self, ids: Sequence[int]) -> tuple[int, ...]:
        matching = (pages for known, pages in self._published if tuple(ids[: len(known)]) == known)
        return max(matching, key=len, default=())

    def _sealed(self, chain: Chain, ids: Sequence[int]) -> list[tuple[bytes, tuple[int, ...]]]:
        tenant, parent = chain.tenant, chain.keys[-1] if chain.keys else _ROOT
        found: list[tuple[bytes, tuple[int, ...]]] = []
        for start in range(len(chain.keys) * PAGE_TOKENS, len(ids) - PAGE_TOKENS, PAGE_TOKENS):
            tokens = tuple(ids[start : start + PAGE_TOKENS])
            parent = tenant.key(parent, tokens)
            if parent not in tenant.vault.boxes:
                break
            found.append((parent, tokens))
        return found

    def _touch(self, tenant: _Tenant) -> None:
        tenant.used_s = self._now_s
        self._tenants.move_to_end(tenant.vault.name)

    def _refresh(self, chain: Chain) -> None:
        # The deepest page becomes the least recent: a page is of no use without those before it.
        for key in reversed(chain.keys):
            if key in chain.tenant.entries:
                chain.tenant.entries.move_to_end(key)

    def _hold(self, tenant: _Tenant, pages: Sequence[Named]) -> None:
        """Hold pages of the tenant, the first of them where there is not room for all."""
        new = [each for each in pages if each.key not in tenant.entries]
        for each in new[: self._room(tenant, len(new))]:
            self._pages.cache(each.page)
            tenant.entries[each.key] = _Entry(each.page, each.tokens)
            self._held += 1

    def _room(self, tenant: _Tenant, wanted: int) -> int:
        """Say for how many more of the tenant's pages there is room; for a lasting one idle ones go."""
        if tenant.lasting and self._pages.idle:
            self._pages.uncache(self._drop_idle(tenant, len(tenant.entries) + wanted - self._tenant_pages))
            wanted = min(wanted, self._tenant_pages - len(tenant.entries))
            self.evict(self._held + wanted - self._total_pages)
        return max(0, min(self._tenant_pages - len(tenant.entries), self._total_pages - self._held))

    def _drop_idle(self, tenant: _Tenant, count: int) -> list[int]:
        """Give up as many as `count` idle pages of the tenant, the least recent first; return them."""
        idle = (key for key, entry in tenant.entries.items() if self._pages.is_idle(entry.page))
        entries = [(key, tenant.entries.pop(key)) for key in list(islice(idle, max(0, count)))]
        self._held -= len(entries)
        if entries and self.offload is not None and tenant.lasting:
            given = [Named(key, entry.tokens, entry.page) for key, entry in entries]
            self.offload.put(tenant.vault, given, self._not_after(tenant))
        return [entry.page for _, entry in entries]

    def _not_after(self, tenant: _Tenant) -> Iterator[Vault]:
        """Yield the vaults of those that were less recently there than the tenant, and then its own."""
        for other in self._tenants.values():
            yield other.vault
            if other is tenant:
                return
