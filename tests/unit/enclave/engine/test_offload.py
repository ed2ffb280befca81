"""What the cache gives up is sealed for its tenant, bounded, found again by nobody else, and gone with the key."""

from array import array
from random import Random

import pytest
from confide_enclave.engine import offload
from confide_enclave.engine.offload import Offload, Vault
from confide_enclave.engine.pages import PAGE_TOKENS, Pages
from confide_enclave.engine.prefix import PrefixCache
from structlog.testing import capture_logs

from tests.fakes.offload import Slots

ALICE, BOB, CAROL = b"a" * 32, b"b" * 32, b"c" * 32
IDS = list(range(5 * PAGE_TOKENS + 1))


class Room:
    """A pool, a cache that holds little, and slots for what it gives up."""

    def __init__(self, pages: int = 40, held: int = 2, tenant_slots: int = 8, slots: int = 16) -> None:
        self.rows: dict[int, object] = {}
        self.pages = Pages(pages, self.wipe)
        self.cache = PrefixCache(self.pages, held, held * 2)
        self.memory = Slots(self.rows)
        self.offload = self.cache.offload = Offload(self.memory, tenant_slots, slots, Random(1).randbytes)

    def wipe(self, pages: list[int]) -> None:
        for page in pages:
            for row in range(page * PAGE_TOKENS, (page + 1) * PAGE_TOKENS):
                self.rows.pop(row, None)

    def read(self, salt: bytes, ids: list[int] = IDS, lasting: bool = True) -> int:
        """Read a prompt as the scheduler does; return how many of its pages need not be computed."""
        chain = self.cache.open(salt, lasting)
        found = self.cache.match(chain, ids)
        held = found + self.pages.take(-(-len(ids) // PAGE_TOKENS) - len(found))
        self.cache.restore(chain, held)
        known = len(chain.keys)
        for position, token in enumerate(ids):
            row = held[position // PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS
            if position < known * PAGE_TOKENS:
                assert self.rows[row] == (salt, position, token)
            self.rows[row] = (salt, position, token)
        self.cache.store(chain, ids, held, len(ids))
        self.pages.release(held)
        self.cache.close(chain)
        return known

    def vault(self, salt: bytes) -> Vault:
        return next(tenant.vault for tenant in self.cache._tenants.values() if tenant.salt == salt)


def test_what_is_given_up_comes_back() -> None:
    """A prompt that the pool had to give up is opened for its tenant, and computed by everybody else."""
    room = Room()
    assert room.read(ALICE) == 0
    room.cache.evict(100)
    assert room.pages.free == 40
    assert room.read(BOB) == 0
    assert room.read(ALICE) == 2  # all that the cache held
    room.read(ALICE, [7] * 80)
    assert room.read(ALICE) == 2
    assert room.offload.opened == 4


def test_a_longer_prompt_grows_page_by_page() -> None:
    """What was sealed stays sealed while more of the prompt is read and given up: in the end all comes back."""
    room = Room(held=5)
    room.read(ALICE)
    room.cache.evict(2)
    sealed = dict(room.vault(ALICE).boxes)
    room.cache.evict(100)
    assert len(room.vault(ALICE).boxes) == 5
    assert room.read(ALICE) == 5
    room.cache.evict(100)
    assert room.vault(ALICE).boxes.items() >= sealed.items()
    assert len(room.memory.nonces) == 5
    assert room.read(ALICE, IDS[: 2 * PAGE_TOKENS] + [9] * 40) == 2


def test_one_id_is_left_over() -> None:
    """What follows from the last id is wanted, so its page is computed."""
    room = Room(held=5)
    room.read(ALICE)
    room.cache.evict(100)
    assert room.read(ALICE, IDS[: 4 * PAGE_TOKENS]) == 3
    assert room.read(ALICE, IDS[: 4 * PAGE_TOKENS + 1]) == 4


def test_what_is_about_to_be_opened_is_not_displaced() -> None:
    """While room is made for a prompt, what goes is older than what this prompt wants, if it was sealed before."""
    room = Room(held=3, tenant_slots=6)
    for ids in (IDS[:49], [7] * 49, [8] * 33):
        room.read(ALICE, ids)
        if ids[0] != 8:
            room.cache.evict(100)
    chain = room.cache.open(ALICE, lasting=True)
    assert room.cache.match(chain, IDS[:49]) == []
    room.cache.evict(2)
    room.cache.restore(chain, room.pages.take(4))
    assert len(chain.keys) == 3


def test_a_tenants_bound() -> None:
    """A tenant over its bound loses what it used longest ago, a prompt's end first; nobody else does."""
    room = Room(held=5, tenant_slots=5)
    room.read(BOB)
    room.read(ALICE, IDS[: 3 * PAGE_TOKENS + 1])
    room.cache.evict(100)
    for n in (1, 2):
        room.read(ALICE, [n] * PAGE_TOKENS + IDS)
        room.cache.evict(100)
    assert len(room.vault(ALICE).boxes) == 5
    assert room.read(ALICE, [2] * PAGE_TOKENS + IDS) == 5
    assert room.read(BOB) == 5


def test_all_tenants_bound() -> None:
    """When the slots are full, whoever was there later keeps what it has."""
    room = Room(held=5, slots=8)
    room.read(ALICE)
    room.read(BOB)
    room.cache.evict(100)  # Alice's, and then Bob's, for whom three slots and two of hers do
    assert [len(room.vault(salt).boxes) for salt in (ALICE, BOB)] == [3, 5]
    room.read(CAROL)
    room.cache.evict(100)
    assert [len(room.vault(salt).boxes) for salt in (ALICE, BOB, CAROL)] == [0, 3, 5]
    room.read(ALICE)
    room.read(CAROL)
    room.cache.evict(5)  # Alice was there before Carol: Bob's go for hers, Carol's do not
    assert [len(room.vault(salt).boxes) for salt in (ALICE, BOB, CAROL)] == [3, 0, 5]


def test_more_than_all_slots() -> None:
    """Of a prompt for which there is not room its beginning is kept."""
    room = Room(held=5, tenant_slots=3)
    room.read(ALICE)
    room.cache.evict(100)
    assert room.read(ALICE) == 3
    room = Room(held=5, slots=2)
    room.read(ALICE)
    room.cache.evict(100)
    assert room.read(ALICE) == 2


def test_forgetting() -> None:
    """With its pages a tenant's key and what it sealed are gone, at once; others' stay."""
    room = Room()
    room.read(ALICE)
    room.read(BOB)
    room.cache.evict(100)
    vault, key = room.vault(ALICE), room.vault(ALICE).key
    assert (len(key), len(room.memory.slots)) == (32, 4)
    room.cache.forget(ALICE)
    assert key == bytes(32)
    assert not vault.boxes
    assert len(room.memory.slots) == 2
    assert room.read(ALICE) == 0
    assert room.read(BOB) == 2
    room.cache.forget_all()
    assert not room.memory.slots
    assert sorted(room.offload._free) == list(range(16))


def test_a_lost_device_keeps_no_key() -> None:
    """Where pages cannot be wiped, every tenant's key and salt are overwritten all the same."""
    room = Room()
    for salt in (ALICE, BOB):
        room.read(salt, IDS[:33])
        room.cache.evict(100)
        room.read(salt)
    tenants = list(room.cache._tenants.values())
    keys = [tenant.vault.key for tenant in tenants]
    assert all(map(any, keys))

    def fail(_: list[int]) -> None:
        raise RuntimeError("lost")

    room.pages._wipe = fail
    with pytest.raises(RuntimeError, match="lost"):
        room.cache.forget_all()
    assert keys == [bytes(32)] * 2
    assert [tenant.salt for tenant in tenants] == [bytes(32)] * 2
    assert not room.memory.slots
    assert room.pages.available < 40


def test_idle_tenants_are_forgotten() -> None:
    """When a tenant was away for too long, what it sealed goes as its pages do."""
    room = Room()
    room.read(ALICE)
    room.cache.evict(100)
    assert room.cache.tick(59, 60) == 1
    assert room.memory.slots
    assert room.cache.tick(60, 60) is None
    assert not room.memory.slots


def test_who_cannot_come_back_is_not_sealed() -> None:
    """Pages of a tenant without a key of its own leave the pool for nowhere."""
    room = Room()
    chain = room.cache.open(ALICE, lasting=False)
    room.read(ALICE, lasting=False)
    room.cache.evict(100)
    assert not room.memory.slots
    room.cache.close(chain)


def test_published_pages_are_not_sealed() -> None:
    """What is for everybody stays in the pool; what follows it is sealed for its tenant."""
    room = Room(held=5)
    held = room.pages.take(2)
    for position, token in enumerate(IDS[: 2 * PAGE_TOKENS]):
        room.rows[held[position // PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS] = (ALICE, position, token)
    room.cache.publish(IDS[: 2 * PAGE_TOKENS], held)
    room.pages.release(held)
    assert room.read(ALICE) == 2
    room.cache.evict(100)
    assert len(room.memory.slots) == 3
    assert room.pages.free == 38
    assert room.read(ALICE) == 5


def test_a_spoilt_page_is_computed_again() -> None:
    """What is before it is used; it is dropped and counted; what is after it is of use again once it is back."""
    room = Room(held=5)
    room.read(ALICE)
    room.cache.evict(100)
    third = list(room.vault(ALICE).boxes.values())[-3]
    room.memory.spoilt.add(third.slot)
    with capture_logs() as logs:
        assert room.read(ALICE) == 2
    assert logs == [{"event": "offload_refused", "kind": "bad_tag", "count": 1, "log_level": "error"}]
    assert room.offload.refused == 1
    room.cache.evict(100)
    assert room.read(ALICE) == 5


def test_faults_cost_pages_and_nothing_else() -> None:
    """Memory that cannot be sealed to, or opened from, is as if it were not there."""
    room = Room()
    room.memory.broken = True
    with capture_logs() as logs:
        room.read(ALICE)
        room.cache.evict(100)
        assert room.read(ALICE) == 0
        assert logs[0] == {"event": "offload_failed", "kind": "RuntimeError", "count": 2, "log_level": "error"}
        room.memory.broken = False
        room.cache.evict(100)
        room.memory.broken = True
        assert room.read(ALICE) == 0
    assert not room.memory.slots
    room.memory.broken = False
    room.cache.evict(100)
    assert room.read(ALICE) == 2
    assert (
        len(room.memory.nonces) == 4 + 1
    )  # the first seal failed at its first page; its second nonce was spent too
    room.cache.forget_all()
    assert sorted(room.offload._free) == list(range(16))


def test_keys_and_nonces() -> None:
    """Every tenant has a key of its own, another one after it was forgotten; nonces are counted."""
    room = Room()
    for _ in range(2):
        for salt in (ALICE, BOB):
            room.read(salt)
        room.cache.evict(100)
        assert {vault.sealed for vault in map(room.vault, (ALICE, BOB))} == {2}
        room.cache.forget_all()
    assert len({key for key, _ in room.memory.nonces}) == 4
    assert {nonce for _, nonce in room.memory.nonces} == {bytes(12), bytes(11) + b"\1"}


def test_a_key_that_has_sealed_enough_is_replaced(monkeypatch) -> None:
    """No nonce can come twice: the tenant gets another key, and what the old one sealed is dropped."""
    monkeypatch.setattr(offload, "MAX_PAGES_PER_KEY", 5)
    room = Room()
    for n in range(6):
        room.read(ALICE, [n] * 33)
        room.cache.evict(100)
        assert room.vault(ALICE).sealed <= 5
    assert len({key for key, _ in room.memory.nonces}) == 3
    assert len(room.vault(ALICE).boxes) == len(room.memory.slots) == 4
    assert room.read(ALICE, [5] * 33) == 2


def test_a_page_is_bound_to_what_it_is() -> None:
    """Layout, tenant, the tokens before it and its own: a change of any is another context."""
    room = Room(held=5)
    room.read(ALICE)
    room.read(BOB)
    room.cache.evict(100)
    starts = range(0, 5 * PAGE_TOKENS, PAGE_TOKENS)
    ids = {array("I", IDS[start : start + PAGE_TOKENS]).tobytes() for start in starts}
    for vault in (room.vault(ALICE), room.vault(BOB)):
        tails = set()
        for key, box in vault.boxes.items():
            context, whole = room.memory.slots[box.slot][2], b"confide.kv-page.v1" + bytes(room.memory.geometry)
            assert context.startswith(whole + vault.name + key)
            tails.add(context.removeprefix(whole + vault.name + key))
        assert tails == ids


@pytest.mark.parametrize("salt", [ALICE, BOB])
def test_nothing_is_shown(salt: bytes) -> None:
    """No repr shows keys or ids."""
    room = Room()
    room.read(salt)
    room.cache.evict(100)
    chain = room.cache.open(salt, lasting=True)
    room.cache.match(chain, IDS)
    shown = repr(room.vault(salt)) + repr(chain) + repr(offload.Named(chain.sealed[0][0], (4711,), 3))
    assert repr(bytes(room.vault(salt).key)) not in shown
    assert repr(chain.sealed[0][0]) not in shown
    assert "4711" not in shown
    assert "14, 15" not in shown
