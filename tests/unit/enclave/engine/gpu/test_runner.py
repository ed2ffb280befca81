"""Steps on a GPU give what they give on a CPU, replayed or launched, and leave nothing where it is not theirs."""

from collections.abc import Callable
from collections.abc import Sequence as Items

import pytest
import torch
from confide_enclave.engine import Sampling, gpu_runner
from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.gpu_runner import MAX_GRAPH_CONTEXT, GpuRunner, graph_shapes, warm_up_counts
from confide_enclave.engine.grammar import Grammars
from confide_enclave.engine.lane import Lane
from confide_enclave.engine.model import Decoder
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.runner import Runner
from confide_enclave.engine.sampler import Drawn
from confide_enclave.engine.scheduler import Step
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream, Tokens
from confide_enclave.engine.weights import load_weights
from confide_kernels import place

from tests.fakes import decoder as toy
from tests.fakes.lane import HostLane

# The interpreter's arithmetic is numpy's, which warns of numbers that are not finite.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
CONTEXT, PAGES = 64, 24


def make(number: int, pages: Items[int], prompt: Items[int] = (1, 5, 7, 9), **asked) -> Sequence:
    values = {"temperature": 0.9 * (number % 2), "top_p": 0.9, "max_tokens": 99, "seed": number} | asked
    return Sequence(list(prompt), Sampling(**values), 99, TextStream(()), print, pages=list(pages))


def build(
    kind: type[Runner], scheme: str, family: str = "llama", lane: Lane | None = None, tied: bool = True
) -> Runner:
    device = torch.device("cpu") if lane is None else lane.device
    weights = load_weights(toy.model(toy.tensors(1, family, tied), scheme, family), torch.float32, device)
    model, pool = Decoder(weights, 2 * CONTEXT), KvPool.of(weights, PAGES)
    return kind(model, pool) if lane is None else kind(model, pool, lane)


def run(runner: Runner, sequences: list[Sequence], steps: int, chunk: int = 99) -> list[list[Drawn]]:
    """Run so many steps over all that has remained; take what is drawn as the engine does."""
    drawn: list[list[Drawn]] = [[] for _ in sequences]
    for _ in range(steps):
        parts = [(each, min(each.remaining, chunk) + len(each.guesses)) for each in sequences]
        for who, token in runner.run(Step(tuple(sorted(parts, key=lambda part: part[1] > 1)))):
            assert token is not None
            who.generated.append(token.token)
            if who.grammar is not None:
                who.grammar.advance(token.token)
            right = who.guesses[:1] == [token.token]
            who.guesses = who.guesses[1:] if right else []
            who.computed += right
            drawn[sequences.index(who)].append(token)
    return drawn


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[Drawn]]]:
    """What a CPU's runner makes of the same sequences, with the facades of a CPU."""

    def on_cpu(sequences: list[Sequence], steps: int, family: str = "llama") -> list[list[Drawn]]:
        with monkeypatch.context() as patch:
            patch.setattr(place, "INTERPRETED", False)
            return run(build(Runner, "w8a8", family), sequences, steps)

    return on_cpu


def crowd() -> list[Sequence]:
    return [
        make(1, [2, 0], temperature=0.0),
        make(3, [4, 3], [9, 2, 40] * 7, logprobs=2),
        make(5, [8], top_k=3, min_p=0.05, frequency_penalty=0.7, repetition_penalty=1.3, logit_bias=((7, 2.0),)),
    ]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_tokens_are_those_of_a_cpu(lane: Lane, expected: Callable[..., list[list[Drawn]]], family: str) -> None:
    """In exact mode to the last bit, log-probabilities too: prompts are launched, then graphs are replayed."""
    runner = build(GpuRunner, "w8a8", family, lane)
    runner.record(4, CONTEXT)
    assert run(runner, crowd(), 3) == expected(crowd(), 3, family)


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16", "none"])
def test_fast_mode_comes_close(lane: Lane, scheme: str) -> None:
    """Replayed or launched one by one, its logits are those of a CPU within rounding."""
    drawn = []
    for recorded in (0, 2):
        runner = build(GpuRunner, scheme, "llama", lane)
        if recorded:
            runner.record(recorded, CONTEXT)
        drawn.append(run(runner, [make(2, [1], [4, 9, 30, 2], logprobs=0)], 3)[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "INTERPRETED", False)
        (cpu,) = run(build(Runner, scheme), [make(2, [1], [4, 9, 30, 2], logprobs=0)], 3)
    for made in drawn:
        assert [each.token for each in made] == [each.token for each in cpu]
        assert [each.logprob for each in made] == pytest.approx([each.logprob for each in cpu], abs=1e-3)


def test_a_replayed_step_stores_its_own_rows_alone(lane: Lane) -> None:
    """What a graph has more rows for is of nobody: no other row of the pool is written."""
    runner = build(GpuRunner, "w8a8", "llama", lane)
    runner.record(4, CONTEXT)
    one = make(2, [5, 7])
    run(runner, [one], 2)
    written = runner.pool.data.count_nonzero((0, 1, 3, 4)).nonzero().flatten().tolist()
    assert written == [5 * 16 + position for position in range(one.computed)]
    runner.wipe([5, 7])
    assert not runner.pool.data.any()
    assert not runner.pool.tops.any()


def test_guesses_are_checked_along_with_the_rest(lane: Lane, expected: Callable[..., list[list[Drawn]]]) -> None:
    """Right ones count, wrong ones change nothing, and all of a step's draws come back at once."""
    fresh = [make(1, [2, 0]), make(4, [4], presence_penalty=0.5)]
    plain = expected(fresh, 4)
    runner = build(GpuRunner, "w8a8", "llama", lane)
    runner.record(8, CONTEXT)
    guessing = [make(1, [2, 0]), make(4, [4], presence_penalty=0.5)]
    first = run(runner, guessing, 1)
    for who, known, wrong in zip(guessing, plain, (2, 1), strict=True):
        who.guesses = [each.token for each in known[1:4]]
        who.guesses[wrong] = (who.guesses[wrong] + 1) % 99
    fetches = lane.fetches if isinstance(lane, HostLane) else 0
    second = run(runner, guessing, 1)
    assert [len(each) for each in second] == [3, 2]
    for one, two, known in zip(first, second, plain, strict=True):
        assert one + two == known[: 1 + len(two)]
    if isinstance(lane, HostLane):
        assert (lane.fetches - fetches, lane.replays) == (1, 2)


def test_a_grammar_follows_what_was_drawn(lane: Lane, expected: Callable[..., list[list[Drawn]]]) -> None:
    """Its state knows no guesses: rows that check them are drawn from one after another."""
    tokens = Tokens(toy.model(toy.tensors(1), "w8a8").metadata)
    grammar = 'start: "ab" "cd" "ef" "gh"'

    def fresh() -> list[Sequence]:
        one = make(2, [1], grammar=grammar)
        one.grammar = Grammars(tokens).start(grammar)
        return [one]

    (plain,) = expected(fresh(), 5)
    runner = build(GpuRunner, "w8a8", "llama", lane)
    who = fresh()
    (first,) = run(runner, who, 1)
    who[0].guesses = [each.token for each in plain[1:3]]
    (second,) = run(runner, who, 1)
    assert first + second == plain[:4]


def test_other_pages_are_noticed(lane: Lane, expected: Callable[..., list[list[Drawn]]]) -> None:
    """One that was sent out and comes in again reads its new pages, as many as it had."""
    (plain,) = expected([make(3, [1, 2])], 4)
    runner = build(GpuRunner, "w8a8", "llama", lane)
    runner.record(1, CONTEXT)
    who = make(3, [1, 2])
    (first,) = run(runner, [who], 2)
    runner.wipe([1, 2])
    who.pages, who.computed = [9, 6], 0
    (second,) = run(runner, [who], 2)
    assert first + second == plain


def test_rows_that_are_not_finite_give_none(lane: Lane) -> None:
    """A sequence whose numbers are none gets no token; its neighbour does."""
    runner = build(GpuRunner, "none", "llama", lane, tied=False)
    ill, well = make(2, [1]), make(4, [2], [2, 5, 7, 9])
    parts = tuple((each, 4) for each in (ill, well))
    runner._model._weights.embedding.rows[1] = float("nan")
    drawn = dict(runner.run(Step(parts)))
    assert drawn[ill] is None
    assert drawn[well] is not None


def test_what_steps_leave_is_erased(lane: Lane) -> None:
    """Ids and states in the memory of graphs are overwritten; the next step is what it would have been."""
    runner = build(GpuRunner, "w8a8", "llama", lane)
    runner.record(2, CONTEXT)
    (drawn,) = run(runner, [who := make(2, [1])], 2)
    assert any(graph._inputs[2].max() >= 0 for graph in runner._graphs)
    runner.erase()
    for graph in runner._graphs:
        assert graph._inputs.tolist() == graph._unused.tolist()
        assert not any(left.any() for left in (graph._states.residual, *graph._states.added))
    (again,) = run(runner, [who], 1)
    (whole,) = run(build(GpuRunner, "w8a8", "llama", lane), [make(2, [1])], 3)
    assert drawn + again == whole


def test_as_many_graphs_as_are_named() -> None:
    """Rows double, contexts grow fourfold, up to what the settings may ask for; what is too large has none."""
    assert graph_shapes(3, 100) == [(1, 112), (2, 112), (4, 112)]
    assert graph_shapes(2, 5000) == [(1, 1024), (1, 4096), (1, 5008), (2, 1024), (2, 4096), (2, 5008)]
    most = graph_shapes(256, 1 << 17)
    assert len(most) == len(set(most)) <= 9 * 5
    assert max(rows * context for rows, context in most) <= MAX_GRAPH_CONTEXT
    assert {rows for rows, _ in most} == {2**power for power in range(9)}


def test_what_is_compiled_ahead_leaves_nothing(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of each kind are run over pages that are zero again."""
    monkeypatch.setattr(gpu_runner, "warm_up_counts", warm_up_counts)
    monkeypatch.setattr(gpu_runner, "WARM_UP", (1, 17, 99))
    counts: list[int] = []
    runner = build(GpuRunner, "w8a8", "llama", lane)
    compute = runner._compute
    monkeypatch.setattr(runner, "_compute", lambda made: counts.append(len(made.tokens)) or compute(made))
    runner.warm_up(20, 3)
    assert counts == [1, 17, 23, 1, 3]
    assert not runner.pool.data.any()


def test_pages_for_tokens_to_come_take_no_room_in_a_graph(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt's first rows fit a graph for short contexts, though it holds pages for all of it."""
    monkeypatch.setattr(gpu_runner, "_LEAST_CONTEXT", PAGE_TOKENS)
    runner = build(GpuRunner, "w8a8", "llama", lane)
    runner.record(1, 2 * PAGE_TOKENS)
    one = make(2, [5, 7, 1], [9, 2, 40] * 7)
    run(runner, [one], 2, chunk=1)
    assert one.computed == 2
