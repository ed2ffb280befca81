"""Exact mode through the whole scheduler: hits, misses, sealing, preemption, guesses and company change no bit."""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
import torch
from confide_enclave.engine import Sampling, sampler
from confide_enclave.engine.offload import Offload
from confide_enclave.engine.offload_memory import HostMemory
from confide_enclave.engine.pages import PAGE_TOKENS, Pages
from confide_enclave.engine.prefix import PrefixCache
from confide_enclave.engine.runner import Runner
from confide_enclave.engine.scheduler import Bounds, Scheduler
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.speculate import MAX_GUESSES, Guesser, PromptLookup
from confide_enclave.engine.tokens import TextStream, Tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import decoder as toy

TENSORS = toy.tensors(7)
MACHINE = toy.Machine(TENSORS)
TOKENS = Tokens(toy.model(TENSORS, "w8a8").metadata)
LENGTH = 20
TENANTS = (b"a" * 32, b"b" * 32)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = torch.get_num_threads()
    MACHINE.pool.data.zero_()
    yield
    MACHINE.pool.data.zero_()
    torch.set_num_threads(before)


class World:
    """An engine without its thread; `computed` counts prompt tokens, `rows` holds the logits of each draw."""

    def __init__(self, pages: int, bounds: Bounds, cached: int, slots: int = 0) -> None:
        self.runner = Runner(MACHINE.decoder, MACHINE.pool)
        self.pages = Pages(pages, self.runner.wipe)
        self.prefixes = PrefixCache(self.pages, cached, cached)
        if slots:
            memory = HostMemory(MACHINE.pool, slots)
            self.prefixes.offload = Offload(memory, slots, slots, Random(slots).randbytes)
        self.scheduler = Scheduler(self.pages, self.prefixes, bounds)
        self.rows: dict[Sequence, list[torch.Tensor]] = {}
        self.computed: Counter[Sequence] = Counter()

    def add(self, sequence: Sequence) -> None:
        self.rows[sequence] = []
        self.scheduler.add(sequence)

    def step(self) -> None:
        for sequence in self.scheduler.sequences:
            sequence.guess(MAX_GUESSES)
        step = self.scheduler.next_step()
        if step is None:
            return
        for sequence, count in step.parts:
            self.computed[sequence] += count if not sequence.generated else 0
        draw, sampler.draw = sampler.draw, self._watch(sampler.draw)
        try:
            for sequence, drawn in self.runner.run(step):
                if sequence.append(drawn, TOKENS).finish_reason:
                    self.scheduler.store(sequence)
                    self.scheduler.remove(sequence)
        finally:
            sampler.draw = draw
        for sequence in step.sequences:
            self.scheduler.store(sequence)

    def run(self) -> None:
        while self.scheduler.sequences:
            self.step()

    def end(self) -> None:
        """Let the cache go; then every page must be free and every number zero."""
        self.prefixes.forget_all()
        assert self.pages.free == len(self.pages)
        assert not MACHINE.pool.data.any()
        assert not MACHINE.pool.tops.any()

    def _watch(self, draw):
        def watched(logits, drawing):
            for row, sequence in zip(logits, drawing, strict=True):
                self.rows[sequence].append(row.clone())
            return draw(logits, drawing)

        return watched


def make(prompt: list[int], seed: int, temperature: float, tenant: bytes, *, guess: bool, account: str) -> Sequence:
    sampling = Sampling(temperature=temperature, top_p=1.0, max_tokens=LENGTH, seed=seed)
    guesser = Guesser(PromptLookup(), MAX_GUESSES) if guess else None
    return Sequence(
        prompt, sampling, LENGTH, TextStream(()), print, guesser=guesser, account=account, salt=tenant, lasting=True
    )


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 7), st.integers(1, 4), st.integers(3, 90), st.sampled_from([8, 12, 40]), st.integers(0, 2**32)
)
def test_hits_misses_and_preemption_change_no_bit(
    crowd: int, places: int, budget: int, pages: int, seed: int
) -> None:
    """Ids and logits of every token are those of a request alone, in a blank engine, by one thread."""
    rng = Random(seed)
    trunk = [rng.randrange(3, toy.VOCABULARY) for _ in range(70)]
    asked = []
    for number in range(crowd):
        own = [rng.randrange(3, toy.VOCABULARY) for _ in range(rng.choice([1, 9, 30]))]
        prompt = trunk[: rng.choice([0, 16, 33, 70])] + own
        asked.append((prompt, number, rng.choice([0.0, 0.9]), rng.choice(TENANTS)))
    expected = []
    torch.set_num_threads(1)
    for each in asked:
        world, alone = World(40, Bounds(1, 256, 40), 0), make(*each, guess=False, account="")
        world.add(alone)
        world.run()
        world.end()
        expected.append((torch.stack(world.rows[alone]), alone.generated))
    torch.set_num_threads(rng.choice([1, 2]))
    cached, slots = rng.choice([0, 3, pages]), rng.choice([0, 5, 40])
    world = World(pages, Bounds(places, budget, rng.choice([8, pages])), cached, slots)
    together = [make(*each, guess=rng.random() < 0.5, account=rng.choice("xy")) for each in asked]
    for sequence in together:
        world.add(sequence)
        for _ in range(rng.choice([0, 1, 12])):
            world.step()
    world.run()
    for sequence, (logits, ids) in zip(together, expected, strict=True):
        assert sequence.generated == ids
        assert torch.equal(torch.stack(world.rows[sequence]), logits)
    world.end()


def test_only_the_same_tenant_computes_less() -> None:
    """The second time costs A one page at most, and B the whole prompt."""
    world, prompt = World(40, Bounds(4, 64, 40), 40), [*range(3, 70)]
    costs = []
    for tenant in (TENANTS[0], TENANTS[1], TENANTS[0]):
        sequence = make(prompt, 1, 0.0, tenant, guess=False, account="same")
        world.add(sequence)
        world.run()
        costs.append(world.computed[sequence])
    assert costs == [len(prompt), len(prompt), len(prompt) % PAGE_TOKENS]
    world.end()


def test_sealed_pages_come_back_as_they_were() -> None:
    """Two tenants in turns, in a pool for one: from the third on answers come through sealed pages, bit for bit."""
    prompt = [*range(3, 70)]
    alone = World(40, Bounds(1, 64, 40), 0)
    expected = make(prompt, 1, 0.0, TENANTS[0], guess=False, account="")
    alone.add(expected)
    alone.run()
    world = World(7, Bounds(1, 64, 7), 7, 20)
    assert world.prefixes.offload is not None
    for number in range(6):
        sequence = make(prompt, 1, 0.0, TENANTS[number % 2], guess=number % 2 == 0, account="")
        world.add(sequence)
        world.run()
        assert sequence.generated == expected.generated
        assert torch.equal(torch.stack(world.rows[sequence]), torch.stack(alone.rows[expected]))
    assert world.prefixes.offload.opened >= 12
    assert world.prefixes.offload.refused == 0
    world.end()
