"""The cache of prefixes: found by the same tenant alone, bounded, and gone when it is forgotten."""

from confide_enclave.engine.pages import PAGE_TOKENS, Pages
from confide_enclave.engine.prefix import Chain, PrefixCache

ALICE, BOB = b"a" * 32, b"b" * 32
IDS = list(range(5 * PAGE_TOKENS))


class Room:
    """A small pool with a cache, and who was wiped."""

    def __init__(self, pages: int = 40, tenant_pages: int = 8, total_pages: int = 16) -> None:
        self.wiped: list[int] = []
        self.pages = Pages(pages, self.wiped.extend)
        self.cache = PrefixCache(self.pages, tenant_pages, total_pages)

    def read(self, salt: bytes, ids: list[int], lasting: bool = True) -> int:
        """Read a prompt, store it, end; return how many pages were found."""
        chain, held, found = self.begin(salt, ids, lasting)
        self.end(chain, held)
        return found

    def begin(self, salt: bytes, ids: list[int], lasting: bool = True) -> tuple[Chain, list[int], int]:
        chain = self.cache.open(salt, lasting)
        found = self.cache.match(chain, ids)
        held = found + self.pages.take(-(-len(ids) // PAGE_TOKENS) - len(found))
        self.cache.store(chain, ids, held, len(ids))
        return chain, held, len(found)

    def end(self, chain: Chain, held: list[int]) -> None:
        self.pages.release(held)
        self.cache.close(chain)


def test_found_by_the_same_tenant_alone() -> None:
    """A's prefix is a hit for A, up to where the ids differ, and a miss for everybody else."""
    room = Room()
    assert room.read(ALICE, IDS) == 0
    assert room.read(BOB, IDS) == 0
    # The last page is read again: what follows from its last id is wanted.
    assert room.read(ALICE, IDS) == 4
    assert room.read(ALICE, [*IDS, 1]) == 5
    assert room.read(ALICE, IDS[: 2 * PAGE_TOKENS] + [7] * 40) == 2
    assert room.read(ALICE, [7, *IDS]) == 0
    assert room.read(ALICE, IDS[PAGE_TOKENS:]) == 0
    assert room.read(bytes(32), IDS) == 0


def test_part_of_a_page_is_not_kept() -> None:
    """Only full pages are stored."""
    room = Room()
    room.read(ALICE, IDS[: PAGE_TOKENS + 5])
    assert room.cache.held == 1


def test_ids_are_compared(monkeypatch) -> None:
    """Even if two keys were the same, other ids would be no hit."""
    room = Room()
    monkeypatch.setattr("confide_enclave.engine.prefix._Tenant.key", lambda *_: b"same")
    assert room.read(ALICE, IDS[:PAGE_TOKENS]) == 0
    assert room.read(ALICE, [7] * (PAGE_TOKENS + 1)) == 0
    assert room.read(ALICE, [*IDS[:PAGE_TOKENS], 1]) == 1


def test_quota_drops_the_deepest_of_the_oldest() -> None:
    """A tenant over its quota loses what it used longest ago, a prompt's end first; nobody else does."""
    room = Room(tenant_pages=5)
    room.read(BOB, IDS)
    room.read(ALICE, IDS[: 3 * PAGE_TOKENS])
    other = [[n] * (3 * PAGE_TOKENS) for n in (1, 2)]
    room.read(ALICE, other[0])
    assert room.cache.held == 10
    assert room.read(ALICE, [*IDS, 1]) == 2
    assert room.read(BOB, [*IDS, 1]) == 5


def test_total_drops_the_least_recent_tenant() -> None:
    """When all tenants together hold too much, whoever was there last keeps its own."""
    room = Room(tenant_pages=8, total_pages=10)
    room.read(ALICE, IDS)
    room.read(BOB, IDS)
    room.read(b"c" * 32, IDS)
    assert room.cache.held == 10
    assert room.read(BOB, [*IDS, 1]) == 5
    assert room.read(ALICE, IDS) == 0


def test_a_prompt_beyond_the_quota_keeps_its_beginning() -> None:
    """What is in use is not dropped for more of the same."""
    room = Room(tenant_pages=3)
    room.read(ALICE, IDS)
    assert room.read(ALICE, IDS) == 3


def test_evict() -> None:
    """Pages that nobody reads can be had, wiped; those that are read stay."""
    room = Room()
    chain, held, _ = room.begin(ALICE, IDS)
    room.read(BOB, IDS)
    assert room.pages.idle == 5
    room.cache.evict(100)
    assert room.pages.free == 35
    assert room.cache.held == 5
    room.end(chain, held)
    room.cache.evict(2)
    assert room.read(ALICE, IDS) == 3


def test_forget() -> None:
    """Forgetting frees and wipes the pages, overwrites the salt, and running sequences store no more."""
    room = Room()
    room.read(ALICE, IDS)
    room.read(BOB, IDS)
    chain, held, _ = room.begin(ALICE, IDS)
    wiped = len(room.wiped)
    room.cache.forget(ALICE)
    assert chain.tenant.salt == bytes(32)
    # Four are still read by the sequence, which found them; one was read again.
    assert len(room.wiped) == wiped + 1
    room.cache.store(chain, IDS * 2, held * 2, 10 * PAGE_TOKENS)
    room.end(chain, held)
    assert room.cache.held == 5
    assert room.read(BOB, IDS) == 4
    assert room.read(ALICE, IDS) == 0
    room.cache.forget_all()
    assert room.cache.held == 0
    assert room.pages.free == 40
    room.cache.forget(ALICE)


def test_idle_tenants_are_forgotten() -> None:
    """After the time-out a tenant is forgotten, unless one of its sequences runs."""
    room = Room()
    room.read(ALICE, IDS)
    chain, held, _ = room.begin(BOB, IDS)
    assert room.cache.tick(59, 60) == 1
    assert room.cache.held == 10
    assert room.cache.tick(60, 60) is None
    assert room.cache.held == 5
    room.end(chain, held)
    assert room.cache.tick(119, 60) == 1
    assert room.cache.held == 5
    assert room.cache.tick(120, 60) is None
    assert room.pages.free == 40


def test_who_cannot_come_back_leaves_nothing() -> None:
    """A tenant without a key of its own shares among its own sequences, and is forgotten with the last of them."""
    room = Room()
    first, held, _ = room.begin(ALICE, IDS, lasting=False)
    assert room.read(ALICE, IDS, lasting=False) == 4
    assert room.cache.held == 5
    room.end(first, held)
    assert room.pages.free == 40
    assert first.tenant.salt == bytes(32)


def test_who_cannot_come_back_displaces_nobody() -> None:
    """Pages of a passing tenant are not held at the cost of those of others."""
    room = Room(tenant_pages=5, total_pages=5)
    room.read(ALICE, IDS)
    room.read(BOB, IDS, lasting=False)
    assert room.read(ALICE, IDS) == 4


def test_published() -> None:
    """What the operator published is there for all, and stays; what follows it is each tenant's own."""
    room = Room()
    held = room.pages.take(3)
    room.cache.publish(IDS[: 2 * PAGE_TOKENS + 3], held)
    room.pages.release(held)
    assert room.pages.free == 38
    assert room.read(ALICE, IDS) == 2
    assert room.read(ALICE, IDS) == 4
    assert room.read(BOB, IDS) == 2
    assert room.read(b"c" * 32, IDS[: PAGE_TOKENS + 8] + [7] * 40, lasting=False) == 0
    # The same ids elsewhere than behind the published prefix are another context.
    assert room.read(ALICE, IDS[2 * PAGE_TOKENS :]) == 0
    room.cache.forget_all()
    room.cache.evict(100)
    assert room.read(BOB, IDS) == 2


def test_nothing_is_shown() -> None:
    """No repr shows ids, keys or salts."""
    room = Room()
    chain, *_ = room.begin(ALICE, IDS)
    shown = repr(chain) + repr(chain.tenant) + repr(list(chain.tenant.entries.values()))
    assert "aaaa" not in shown
    assert "1, 2" not in shown
    assert chain.keys[0].hex() not in shown
