"""Properties of the scheduler: whatever comes and goes, pages have one owner or are read alone, and all get on."""

from collections import Counter

from confide_enclave.engine import Sampling
from confide_enclave.engine.pages import PAGE_TOKENS, Pages, pages_for
from confide_enclave.engine.prefix import PrefixCache
from confide_enclave.engine.scheduler import Bounds, Scheduler, Step
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

CONTEXT = 160
SALTS = [bytes([number]) * 32 for number in range(3)]


class World:
    """A scheduler over a pool whose rows remember the ids up to them: what a model would write, exactly."""

    def __init__(self, pages: int, bounds: Bounds, tenant_pages: int = 8, cached_pages: int = 24) -> None:
        self.rows: dict[int, tuple[int, ...]] = {}
        self.pages = Pages(pages, self.wipe)
        self.prefixes = PrefixCache(self.pages, tenant_pages, cached_pages)
        self.scheduler = Scheduler(self.pages, self.prefixes, bounds)
        self.bounds = bounds
        self.computed: Counter[Sequence] = Counter()
        self.preempted = 0

    def wipe(self, pages: list[int]) -> None:
        for page in pages:
            for row in range(page * PAGE_TOKENS, (page + 1) * PAGE_TOKENS):
                self.rows.pop(row, None)

    def add(self, prompt: list[int], answer: int, account: str = "", salt: bytes = b"", lasting: bool = False):
        answer = min(answer, CONTEXT - len(prompt))
        sequence = Sequence(
            prompt, Sampling(0, 1, answer, 0), answer, TextStream(()), print, account=account, salt=salt,
            lasting=lasting,
        )  # fmt: skip
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> Step | None:
        """Compute one step; every row that is read must hold just what this sequence would have written there."""
        before = set(self.scheduler._running)
        step = self.scheduler.next_step()
        self.preempted += len(before - set(self.scheduler._running))
        if step is None:
            assert self.scheduler.sequences == []
            return None
        assert step.parts
        assert len(set(step.sequences)) == len(step.parts) <= self.bounds.sequences
        assert [count > 1 for _, count in step.parts] == sorted(count > 1 for _, count in step.parts)
        assert sum(count for s, count in step.parts if s.remaining > 1) <= self.bounds.prompt_tokens
        decoding = {s for s in self.scheduler._running if s.remaining == 1}
        assert decoding <= set(step.sequences)
        for sequence, count in step.parts:
            end = sequence.computed + count
            assert 0 < count <= sequence.remaining
            assert pages_for(end) <= len(sequence.pages)
            for position in range(end):
                row = sequence.pages[position // PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS
                if position >= sequence.computed:
                    assert row not in self.rows
                    self.rows[row] = tuple(sequence.ids[: position + 1])
                assert self.rows[row] == tuple(sequence.ids[: position + 1])
            sequence.computed = end
            self.computed[sequence] += count
        for sequence in step.sequences:
            self.scheduler.store(sequence)
        for sequence in step.sequences:
            if not sequence.remaining:
                sequence.generated.append(len(sequence.generated))
                if len(sequence.generated) == sequence.token_limit:
                    self.scheduler.remove(sequence)
        return step

    def check(self) -> None:
        """Every page is held by just those who list it, and what nobody holds is blank."""
        holders: Counter[int] = Counter()
        for sequence in self.scheduler._running:
            assert len(set(sequence.pages)) == len(sequence.pages)
            holders.update(sequence.pages)
        for account in {sequence.account for sequence in self.scheduler._running}:
            assert self.scheduler._held(account) <= self.bounds.account_pages
        cached = [e.page for t in self.prefixes._tenants.values() for e in t.entries.values()]
        assert len(set(cached)) == len(cached) == self.prefixes.held
        holders.update(cached)
        holders.update(page for _, pages in self.prefixes._published for page in pages)
        assert [holders[page] for page in range(len(self.pages))] == self.pages._holders
        free = [p for a, b in zip(self.pages._starts, self.pages._ends, strict=True) for p in range(a, b)]
        assert sorted(free) == [page for page in range(len(self.pages)) if not holders[page]]
        assert len(free) == self.pages.free
        assert self.pages.idle == sum(holders[page] == 1 for page in cached)
        assert not {row // PAGE_TOKENS for row in self.rows} & set(free)
        # Only full pages are shared; nobody writes to a page that another reads.
        for sequence in self.scheduler._running:
            for page in sequence.pages[sequence.computed // PAGE_TOKENS :]:
                assert holders[page] == 1


PROMPTS = st.tuples(st.integers(0, 2), st.integers(1, 100), st.integers(0, 3)).map(
    # A common beginning, and now and then another end.
    lambda drawn: [drawn[0]] * drawn[1] + [9] * drawn[2]
)
REQUESTS = st.tuples(PROMPTS, st.integers(1, 60), st.sampled_from("abc"), st.sampled_from(SALTS), st.booleans())


class Crowd(RuleBasedStateMachine):
    """Requests come, go and are cancelled; tenants are forgotten; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(pages_for(CONTEXT) + 6, Bounds(4, 40, pages_for(CONTEXT)))
        self.now_s = 0.0

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=4))
    def add(self, requests) -> None:
        for request in requests:
            self.world.add(*request)

    @rule(count=st.integers(1, 30))
    def run(self, count: int) -> None:
        for _ in range(count):
            self.world.step()

    @rule(which=st.integers(0, 100))
    def cancel(self, which: int) -> None:
        if sequences := self.world.scheduler.sequences:
            self.world.scheduler.remove(sequences[which % len(sequences)])

    @rule(salt=st.sampled_from(SALTS))
    def forget(self, salt: bytes) -> None:
        self.world.prefixes.forget(salt)

    @rule(wait_s=st.integers(1, 40))
    def wait(self, wait_s: int) -> None:
        self.now_s += wait_s
        self.world.prefixes.tick(self.now_s, 60)

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        left = sum(s.token_limit for s in self.world.scheduler.sequences)
        steps = 0
        while self.world.step() is not None:
            steps += 1
            # Each entry brings a token, and takes at most as many steps as the budget needs for a context.
            assert steps <= (left + 1) * (CONTEXT // 40 + 2)
        self.world.prefixes.forget_all()
        assert self.world.pages.free == len(self.world.pages)
        assert not self.world.rows


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, phases=set(Phase) - {Phase.explain}
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 100), st.integers(1, 60)), min_size=1, max_size=12), st.integers(10, 14))
def test_everybody_ends_in_a_pool_for_one(requests: list[tuple[int, int]], pages: int) -> None:
    """Where hardly more than one context fits, all requests end, and every entry brings a token at least."""
    world = World(pages, Bounds(8, 64, pages))
    for number, (prompt, answer) in enumerate(requests):
        world.add([number] * prompt, answer, account=str(number % 3))
    total = sum(sequence.token_limit for sequence in world.scheduler.sequences)
    while world.step() is not None:
        world.check()
        assert world.preempted <= total


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 60), st.integers(1, 4), st.integers(11, 40))
def test_nobody_is_starved_by_a_flood(prompt: int, theirs: int, answer: int, slots: int, pages: int) -> None:
    """However many requests of one account wait or run, another's first token comes in a fixed number of steps."""
    world = World(pages, Bounds(slots, 48, pages))
    for _ in range(60):
        world.add([1] * theirs, answer, account="flood")
    for _ in range(7):
        world.step()
    mine = world.add([2] * prompt, 1, account="mine")
    # At worst one running request of the flood has to end, and then half of the budget is mine.
    bound = 60 + 2 * PAGE_TOKENS + pages_for(100) + 2 * 100 // 24 + 10
    for _ in range(bound):
        world.step()
        if mine.generated:
            break
    assert mine.generated


def test_cancelled_by_the_thousand() -> None:
    """Three thousand requests come and are cancelled at any time; in the end every page is free and blank."""
    world = World(24, Bounds(4, 64, 24))
    alive: list[Sequence] = []
    for number in range(3000):
        alive.append(
            world.add([number % 5] * (1 + number * 7 % 90), 50, "abc"[number % 3], SALTS[number % 3], True)
        )
        if number % 3 == 0:
            world.step()
        if len(alive) > 12:
            gone = alive.pop(number * 31 % len(alive))
            if gone in world.scheduler.sequences:
                world.scheduler.remove(gone)
    world.check()
    for sequence in world.scheduler.sequences:
        world.scheduler.remove(sequence)
    world.prefixes.forget_all()
    assert world.pages.free == 24
    assert not world.rows
