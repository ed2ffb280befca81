"""Speculation changes no bit of an answer: whoever guesses, however far, in whatever company."""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
import torch
from confide_enclave.engine import Sampling, sampler
from confide_enclave.engine.grammar import Grammars
from confide_enclave.engine.pages import Pages
from confide_enclave.engine.prefix import PrefixCache
from confide_enclave.engine.runner import Runner
from confide_enclave.engine.scheduler import Bounds, Scheduler
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.speculate import MAX_GUESSES, Guesser, PromptLookup, Proposer
from confide_enclave.engine.tokens import TextStream, Tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import decoder as toy

TENSORS = toy.tensors(7)
MACHINE = toy.Machine(TENSORS)
TOKENS = Tokens(toy.model(TENSORS, "w8a8").metadata)
GRAMMARS = Grammars(TOKENS)
LENGTH = 24


class Knowing(Proposer):
    """Knows the answer, and says something else as often as `rng` has it; never without one."""

    def __init__(self, ids: list[int], rng: Random | None = None) -> None:
        self._ids, self._rng, self._read = ids, rng, 0

    def propose(self, new, most):
        self._read += len(new)
        if self._rng is None:
            return self._ids[self._read :][: max(0, most)]
        guesses = self._ids[self._read : self._read + max(0, self._rng.randint(0, max(0, most)))]
        return [each if self._rng.random() < 0.8 else self._rng.randrange(toy.VOCABULARY) for each in guesses]

    def close(self) -> None: ...


def make(prompt: list[int], asked: dict, guesser: Guesser | None = None) -> Sequence:
    sampling = Sampling(**{"temperature": 0.0, "top_p": 1.0, "max_tokens": LENGTH, "seed": 1} | asked)
    grammar = GRAMMARS.start(sampling.grammar) if sampling.grammar else None
    return Sequence(prompt, sampling, LENGTH, TextStream(()), print, grammar=grammar, guesser=guesser)


def answer(sequences: list[Sequence], budget: int, pages: int = 40) -> tuple[dict[Sequence, list], Counter]:
    """Run to the end; return the logits of each token drawn, and in how many steps each sequence took part."""
    rows: dict[Sequence, list] = {sequence: [] for sequence in sequences}
    runner = Runner(MACHINE.decoder, MACHINE.pool)
    free = Pages(pages, runner.wipe)
    scheduler = Scheduler(free, PrefixCache(free, 0, 0), Bounds(len(sequences), budget, pages))
    steps: Counter[Sequence] = Counter()

    def watched(logits, drawing):
        for row, sequence in zip(logits, drawing, strict=True):
            rows[sequence].append(row.clone())
        return draw(logits, drawing)

    draw, sampler.draw = sampler.draw, watched
    try:
        for sequence in sequences:
            scheduler.add(sequence)
        while scheduler.sequences:
            for sequence in scheduler.sequences:
                sequence.guess(MAX_GUESSES)
            step = scheduler.next_step()
            steps.update(step.sequences)
            for sequence, drawn in runner.run(step):
                assert sequence in scheduler.sequences
                if sequence.append(drawn, TOKENS).finish_reason:
                    scheduler.remove(sequence)
    finally:
        sampler.draw = draw
    assert (free.free, int(MACHINE.pool.data.count_nonzero())) == (pages, 0)
    return rows, steps


ASKED = (
    {},
    {"temperature": 0.9},
    {"temperature": 1.3, "top_p": 0.9, "frequency_penalty": 0.7, "repetition_penalty": 1.2},
    {"presence_penalty": 1.0, "logit_bias": ((70, 3.0),)},
    {"grammar": '%llguidance {}\nstart: /([a-z]{3} ){4}/'},
    {"temperature": 1.0, "grammar": '%llguidance {}\nstart: /[0-9]+(,[0-9]+)*/', "logprobs": 2},
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    MACHINE.pool.data.zero_()
    yield
    MACHINE.pool.data.zero_()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, MAX_GUESSES), st.integers(0, 2**32))
def test_speculation_changes_no_bit(crowd: int, budget: int, most: int, seed: int) -> None:
    """Ids and logits of every token are those of each request alone without speculation, preempted or not."""
    rng, expected, together = Random(seed), [], []
    for number in range(crowd):
        prompt = [rng.randrange(3, toy.VOCABULARY) for _ in range(rng.choice([1, 5, 40]))] * rng.choice([1, 2])
        asked = rng.choice(ASKED) | {"seed": number}
        plain = make(prompt, asked)
        expected.append((answer([plain], 256)[0][plain], plain.generated))
        knowing = Knowing([*prompt, *plain.generated], rng)
        proposer = knowing if rng.random() < 0.7 else PromptLookup()
        together.append(make(prompt, asked, Guesser(proposer, most)))
    rows, _ = answer(together, budget, pages=rng.choice([7, 40]))
    for sequence, (logits, ids) in zip(together, expected, strict=True):
        assert sequence.generated == ids
        # A preempted sequence computes again what it had, and draws nothing twice.
        assert torch.equal(torch.stack(rows[sequence]), torch.stack(logits))


def test_guesses_that_come_true_save_steps() -> None:
    """Told the answer, a sequence takes a fraction of the steps; told nonsense, hardly one more."""
    plain = make([5, 6, 7], {})
    _, steps = answer([plain], 256)
    known = make([5, 6, 7], {}, Guesser(Knowing([5, 6, 7, *plain.generated]), 7))
    wrong = make([5, 6, 7], {}, Guesser(Knowing([3] * 90), 7))
    assert answer([known], 256)[1][known] <= 5
    assert answer([wrong], 256)[1][wrong] == steps[plain] == LENGTH


def test_sampled_tokens_keep_their_distribution() -> None:
    """Over seeds, a guessed token and the one after it are distributed as the model says, chi-square."""
    plain = pairs(None)
    guess = Counter(first for first, _ in plain).most_common(1)[0][0]
    guessed = pairs(guess)
    check(Counter(first for first, _ in guessed), [9])
    check(Counter(second for first, second in guessed if first == guess), [9, guess])
    assert guessed == plain
    with pytest.raises(AssertionError):
        check(Counter(first for first, _ in guessed), [8])


def pairs(guess: int | None) -> list[tuple[int, ...]]:
    """Draw two tokens after one with each of many seeds, the first guessed to be `guess`."""
    found = []
    for start in range(0, 480, 30):
        rows = [make([9], {"temperature": 0.3, "seed": seed}) for seed in range(start, start + 30)]
        for row in rows:
            row.token_limit = 2
            row.guesser = None if guess is None else Guesser(Knowing([9, guess]), 1)
        answer(rows, 256)
        found += [tuple(row.generated) for row in rows]
    return found


def check(found: Counter, ids: list[int]) -> None:
    """Hold counts of tokens against the model's distribution after `ids`; rare tokens count together."""
    shares = torch.softmax(MACHINE.read(ids, range(4))[-1].double() / 0.3, 0).mul(found.total()).tolist()
    MACHINE.pool.wipe(range(4))
    large = [token for token, share in enumerate(shares) if share >= 5]
    parts = [(found[token], shares[token]) for token in large]
    parts.append((found.total() - sum(n for n, _ in parts), found.total() - sum(share for _, share in parts)))
    statistic = sum((n - share) ** 2 / share for n, share in parts)
    assert len(large) >= 5
    # Mean and deviation of chi-square with so many degrees of freedom.
    assert statistic < len(large) + 4 * (2 * len(large)) ** 0.5
