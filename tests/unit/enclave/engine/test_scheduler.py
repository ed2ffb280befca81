"""The scheduler over integers alone."""

from confide_enclave.engine import Sampling
from confide_enclave.engine.pages import PAGE_TOKENS, Pages
from confide_enclave.engine.scheduler import Scheduler
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream


def make(prompt_tokens: int, token_limit: int = 9) -> Sequence:
    return Sequence([7] * prompt_tokens, Sampling(0, 1, 9, 0), token_limit, TextStream(()), print)


def scheduler(pages: int = 99, places: int = 3, budget: int = 4) -> tuple[Scheduler, list[int]]:
    """Return a scheduler, and where its pages are noted as they are wiped."""
    wiped: list[int] = []
    return Scheduler(Pages(pages, wiped.extend), places, budget), wiped


def step(scheduler: Scheduler) -> list[tuple[Sequence, int]]:
    """Run one step; whoever is read to the end generates."""
    step = scheduler.next_step()
    for sequence, count in step.parts:
        sequence.computed += count
        if not sequence.remaining:
            sequence.generated.append(0)
    return list(step.parts)


def test_prompts_are_read_within_a_budget_beside_decoding() -> None:
    """Each step decodes whoever can and reads prompts, eldest first, as far as the budget goes."""
    ours, _ = scheduler()
    first, second, third = make(2), make(9), make(4)
    for sequence in (first, second, third):
        ours.add(sequence)
    assert [step(ours) for _ in range(5)] == [
        [(first, 2), (second, 2)],
        [(first, 1), (second, 4)],
        [(first, 1), (second, 3), (third, 1)],
        [(first, 1), (second, 1), (third, 3)],
        [(first, 1), (second, 1), (third, 1)],
    ]


def test_places_go_to_whoever_waits_longest() -> None:
    """A sequence joins when another leaves, whose pages were wiped."""
    ours, wiped = scheduler(places=2)
    first, second, third = make(1), make(1), make(1)
    for sequence in (first, second, third):
        ours.add(sequence)
    assert step(ours) == [(first, 1), (second, 1)]
    held = list(first.pages)
    ours.remove(first)
    assert (wiped, first.pages) == (held, [])
    assert step(ours) == [(second, 1), (third, 1)]


def test_the_youngest_gives_its_pages_to_the_eldest() -> None:
    """Out of pages, the youngest starts again later, from its prompt and what it has generated."""
    ours, wiped = scheduler(pages=4, budget=64)
    elder, younger = make(PAGE_TOKENS * 2 - 1, 40), make(PAGE_TOKENS, 40)
    for sequence in (elder, younger):
        ours.add(sequence)
    step(ours)
    step(ours)
    assert (len(elder.pages), len(younger.pages)) == (2, 2)
    taken = list(younger.pages)
    assert step(ours) == [(elder, 1)]
    assert (wiped, younger.pages, younger.computed, len(younger.generated)) == (taken, [], 0, 2)
    assert len(elder.pages) == 3
    assert step(ours) == [(elder, 1)]
    ours.remove(elder)
    assert step(ours) == [(younger, PAGE_TOKENS + 2)]


def test_a_waiting_sequence_can_leave() -> None:
    """Whoever leaves before it got a page leaves no trace."""
    ours, _ = scheduler(places=1)
    sequence = make(1)
    ours.add(sequence)
    ours.remove(sequence)
    assert ours.sequences == []
    assert ours.next_step() is None


def test_pages_follow_one_another_where_they_can() -> None:
    """Each holder grows within what was kept for it; pages kept for others are taken last."""
    pages = Pages(8, lambda held: None)
    first, second = [], []
    assert pages.grow(first, 1, 4)
    assert pages.grow(second, 1, 3)
    assert pages.grow(first, 4, 4)
    assert pages.grow(second, 2, 3)
    assert (first, second) == ([0, 1, 2, 3], [4, 5])
    third: list[int] = []
    assert pages.grow(third, 2, 2)
    assert third == [7, 6]
    assert not pages.grow(second, 3, 3)
    pages.give_back(first)
    assert pages.grow(second, 4, 3)
    assert (second, pages.free) == ([4, 5, 0, 1], 2)
