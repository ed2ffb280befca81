"""Whatever is read, given up, opened, spoilt, forgotten: tenants find their own, and nobody can read the rest."""

import hashlib
from random import Random

import torch
from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.offload import Offload, Vault
from confide_enclave.engine.offload_memory import HostMemory
from confide_enclave.engine.pages import PAGE_TOKENS, Pages, pages_for
from confide_enclave.engine.prefix import PrefixCache
from confide_enclave.engine.scheduler import Bounds
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from structlog.testing import capture_logs

from tests.fakes.offload import Slots
from tests.property.test_scheduler import CONTEXT, SALTS, Crowd, World

MARK = b"in clear"
PROMPTS = st.tuples(st.integers(0, 1), st.integers(1, 100), st.integers(0, 1), st.integers(0, 40)).map(
    lambda drawn: [drawn[0]] * drawn[1] + [7 + drawn[2]] * drawn[3]
)


class Keeping(RuleBasedStateMachine):
    """A cache over a real pool, real memory and real sealing. A row holds a mark, and a digest of all up to it."""

    @initialize(held=st.integers(1, 8), tenant_slots=st.integers(1, 8), slots=st.integers(1, 12))
    def begin(self, held: int, tenant_slots: int, slots: int) -> None:
        self.pool = KvPool(layers=1, pages=20, kv_heads=1, head_dim=16, dtype=torch.int8)
        self.pages = Pages(20, self.pool.wipe)
        self.cache = PrefixCache(self.pages, held, 12)
        self.memory = HostMemory(self.pool, slots)
        self.offload = self.cache.offload = Offload(self.memory, tenant_slots, slots, Random(2).randbytes)
        self.bounds, self.now_s = (tenant_slots, slots), 0.0
        self.spoilt: set[tuple[int, bytes]] = set()

    @rule(salt=st.sampled_from(SALTS), ids=PROMPTS)
    def read(self, salt: bytes, ids: list[int]) -> None:
        """Read a prompt as the scheduler does. What is said to be there must be what this tenant would compute."""
        chain = self.cache.open(salt, lasting=True)
        found = self.cache.match(chain, ids)
        rest = pages_for(len(ids)) - len(found)
        self.cache.evict(rest - self.pages.free)
        held = found + self.pages.take(rest)
        wanted = [key for key, _ in chain.sealed]
        sealed, refused = set(chain.tenant.vault.boxes), self.offload.refused
        with capture_logs():
            self.cache.restore(chain, held)
        known = len(chain.keys) * PAGE_TOKENS
        assert known < len(ids)
        left = wanted[len(chain.keys) - len(found) :]
        if refused == self.offload.refused:
            assert not left or left[0] not in sealed
        else:
            assert self.spoilt
            assert left[0] not in chain.tenant.vault.boxes
        for position in range(len(ids)):
            row = held[position // PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS
            content = MARK + hashlib.sha256(salt + bytes(ids[: position + 1])).digest()[:8]
            numbers = torch.frombuffer(bytearray(content), dtype=torch.int8)
            if position < known:
                assert torch.equal(self.pool.data[0, 0, row, 0], numbers)
                assert torch.equal(self.pool.data[0, 1, row, 0], -numbers)
                assert self.pool.tops[0, 0, 0, row] == position + 1
            else:
                assert not self.pool.data[0, :, row].any()
                self.pool.data[0, 0, row, 0], self.pool.data[0, 1, row, 0] = numbers, -numbers
                self.pool.tops[0, :, 0, row] = position + 1
        self.cache.store(chain, ids, held, len(ids))
        self.pages.release(held)
        self.cache.close(chain)

    @rule(count=st.integers(1, 20))
    def evict(self, count: int) -> None:
        self.cache.evict(count)

    @rule(salt=st.sampled_from(SALTS))
    def forget(self, salt: bytes) -> None:
        self.cache.forget(salt)

    @rule(wait_s=st.integers(1, 40))
    def wait(self, wait_s: int) -> None:
        self.now_s += wait_s
        self.cache.tick(self.now_s, 60)

    @rule(which=st.integers(0, 100), at=st.integers(0, 1 << 20), bit=st.integers(0, 7))
    def spoil(self, which: int, at: int, bit: int) -> None:
        """Change a bit of something that is sealed."""
        boxes = [box for vault in self.vaults() for box in vault.boxes.values()]
        if boxes:
            box = boxes[which % len(boxes)]
            self.memory._data[box.slot, at % self.memory._data.shape[1]] ^= 1 << bit
            self.spoilt.add((box.slot, box.nonce))

    @invariant()
    def holds(self) -> None:
        """A slot is one tenant's, or nobody's and zero; bounds hold; free pages are blank; no mark is outside."""
        if not hasattr(self, "cache"):
            return
        taken = [box.slot for vault in self.vaults() for box in vault.boxes.values()]
        assert sorted(taken + self.offload._free) == list(range(self.bounds[1]))
        assert not self.memory._data[self.offload._free].any()
        assert all(len(vault.boxes) <= self.bounds[0] for vault in self.vaults())
        keys = [bytes(vault.key) for vault in self.vaults() if vault.key]
        assert len(set(keys)) == len(keys)
        for vault in self.vaults():
            assert len({box.nonce for box in vault.boxes.values()}) == len(vault.boxes) <= vault.sealed
        assert MARK not in self.memory._data.numpy().tobytes()
        assert not self.memory._stage.any()
        free = [p for a, b in zip(self.pages._starts, self.pages._ends, strict=True) for p in range(a, b)]
        assert not self.pool.data.view(1, 2, 20, -1)[:, :, free].any()

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.forget_all()
            assert self.pages.free == 20
            assert not self.memory._data.any()
            assert not self.pool.data.any()

    def vaults(self) -> list[Vault]:
        return [tenant.vault for tenant in self.cache._tenants.values()]


TestKeeping = Keeping.TestCase
TestKeeping.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, phases=set(Phase) - {Phase.explain}
)


class SealingWorld(World):
    """The scheduler's world with slots for what its cache gives up; its steps check every row that is read."""

    def __init__(self, pages: int, bounds: Bounds, slots: int = 20) -> None:
        super().__init__(pages, bounds, tenant_pages=8, cached_pages=12)
        self.memory = Slots(self.rows)
        self.offload = self.prefixes.offload = Offload(self.memory, slots // 2, slots, Random(3).randbytes)

    def check(self) -> None:
        super().check()
        vaults = [tenant.vault for tenant in self.prefixes._tenants.values()]
        taken = [box.slot for vault in vaults for box in vault.boxes.values()]
        assert sorted(taken) == sorted(self.memory.slots)
        assert sorted(taken + self.offload._free) == list(range(20))


class SealingCrowd(Crowd):
    """Requests come, go and are cancelled, tenants are forgotten, and pages are sealed, opened and spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.world = SealingWorld(pages_for(CONTEXT) + 6, Bounds(4, 40, pages_for(CONTEXT)))

    @rule(which=st.integers(0, 100))
    def spoil(self, which: int) -> None:
        if slots := list(self.world.memory.slots):
            self.world.memory.spoilt.add(slots[which % len(slots)])


TestSealingCrowd = SealingCrowd.TestCase
TestSealingCrowd.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, phases=set(Phase) - {Phase.explain}
)


def test_a_long_day() -> None:
    """Hundreds of requests in a pool that is too small: pages are opened by the hundred, and all are right."""
    rng, world = Random(6), SealingWorld(12, Bounds(3, 48, 12))
    trunks = {salt: [[rng.randrange(9)] * 90, [rng.randrange(9)] * 60] for salt in SALTS}
    for number in range(400):
        salt = rng.choice(SALTS)
        prompt = [*rng.choice(trunks[salt])[: rng.choice([20, 50, 90])], number % 3]
        world.add(prompt, rng.randrange(1, 30), rng.choice("ab"), salt, lasting=rng.random() < 0.9)
        for _ in range(rng.randrange(30)):
            world.step()
        if number % 20 == 0:
            world.memory.spoilt |= set(rng.sample(sorted(world.memory.slots), min(2, len(world.memory.slots))))
        if number % 50 == 0:
            world.prefixes.forget(rng.choice(SALTS))
        world.check()
    with capture_logs():
        while world.step() is not None:
            world.check()
    assert world.offload.opened > 300
    assert world.offload.refused > 5
    world.prefixes.forget_all()
    assert world.pages.free == 12
    assert not world.rows
    assert not world.memory.slots
