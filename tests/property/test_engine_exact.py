"""Exact mode: the same bits whatever the batch, the chunks, the threads, the pages and the neighbours."""

from collections.abc import Iterator
from random import Random

import pytest
import torch
from confide_enclave.engine.blocks import context_rows
from confide_enclave.engine.model import Batch
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_kernels import activation, attention, norm, rope
from confide_kernels.attention import Span
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import decoder as toy

FAMILIES = ("llama", "qwen2", "qwen3")
MACHINES = {family: toy.Machine(toy.tensors(7, family), family=family) for family in FAMILIES}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def alone(machine: toy.Machine, ids: list[int]) -> torch.Tensor:
    """Logits of every position, read whole, by one thread, in the first pages."""
    torch.set_num_threads(1)
    return machine.read(ids, range(4))


def poison(pool) -> None:
    """Fill the pool with what no sequence wrote."""
    pool.data.copy_(torch.randint(-128, 128, pool.data.shape))
    pool.tops.fill_(float("nan"))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(FAMILIES), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32))
def test_a_crowd_changes_no_bit(family: str, crowd: int, threads: int, seed: int) -> None:
    """Any interleaving of any chunks of several sequences, in any pages, over garbage: logits as alone."""
    rng, machine = Random(seed), MACHINES[family]
    prompts = [[rng.randrange(toy.VOCABULARY) for _ in range(rng.choice([1, 7, 30, 60]))] for _ in range(crowd)]
    expected = [alone(machine, ids) for ids in prompts]
    poison(machine.pool)
    torch.set_num_threads(threads)
    # Four pages each, one after another or not.
    pages = range(40) if rng.random() < 0.5 else rng.sample(range(40), 40)
    held = [pages[4 * i : 4 * i + 4] for i in rng.sample(range(10), crowd)]
    read, got = [0] * crowd, [[] for _ in prompts]
    while left := [i for i in range(crowd) if read[i] < len(prompts[i])]:
        who = rng.sample(left, rng.randint(1, len(left)))
        parts = [(prompts[i][read[i] :][: rng.choice([1, 1, 3, 50])], read[i], held[i]) for i in who]
        for i, logits in zip(who, machine.step(*parts).split([len(part[0]) for part in parts]), strict=True):
            got[i].append(logits)
            read[i] += len(logits)
    for logits, same in zip(got, expected, strict=True):
        assert torch.equal(torch.cat(logits), same)


@pytest.mark.parametrize("value", [1e30, float("inf"), float("nan")])
def test_a_neighbour_out_of_all_bounds(value: float) -> None:
    """One sequence whose numbers overflow is not finite itself, and changes no bit of another."""
    machine = toy.Machine(toy.tensors(7, tied=False))
    ids, bad = list(range(3, 40)), [1, 2, 1, 2]
    expected = alone(machine, ids)
    machine.decoder._weights.embedding.scales[[1, 2]] = value
    machine.read(ids[:30], [4, 6, 8])
    first = machine.step((bad, 0, [5]), (ids[30:], 30, [4, 6, 8]))
    assert torch.equal(first[4:], expected[30:])
    both = machine.step((bad[:1], 4, [5]), (ids[-1:], 36, [4, 6, 8]))
    assert torch.equal(both[1:], expected[36:])
    assert value == 1e30 or not (first[:4].isfinite().any() or both[0].isfinite().any())


def test_a_long_context_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few scores are computed at once, the bits are the same."""
    machine, ids = MACHINES["llama"], [i % 250 for i in range(15 * PAGE_TOKENS)]
    expected = machine.read(ids, range(15))
    monkeypatch.setattr("confide_kernels.attention.exact._SCORES", 7)
    assert torch.equal(machine.read(ids, range(20, 35), 100), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk", [1, 7, 8, 9, 64])
def test_the_plain_definition_gives_the_same_bits(family: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled for the processor, and the definition in its place: the same logits, and the same cache."""
    machine, ids = MACHINES[family], [(7 * i) % 250 for i in range(60)]
    expected = machine.read(ids, [3, 9, 1, 5], chunk)
    stored = machine.pool.data.clone(), machine.pool.tops.clone()
    for name, definition in (
        ("norm.add_rms_norm_int8", norm.naive.add_rms_norm_int8),
        ("rope.rotate_store", rope.naive.rotate_store),
        ("attention.attend_int8", attention.exact.attend_int8),
        ("activation.silu_mul_int8", activation.naive.silu_mul_int8),
    ):
        monkeypatch.setattr(f"confide_kernels.{name}", definition)
    poison(machine.pool)
    assert torch.equal(machine.read(ids, [3, 9, 1, 5], chunk), expected)
    rows = context_rows([3, 9, 1, 5], 60)
    assert torch.equal(machine.pool.data[:, :, rows], stored[0][:, :, rows])
    assert torch.equal(machine.pool.tops[..., rows], stored[1][..., rows])


def test_a_step_that_wants_nothing() -> None:
    """A step amid everybody's prompts gives no logits, and changes none of those after it."""
    machine, ids = toy.Machine(toy.tensors(7)), list(range(3, 40))
    expected = alone(machine, ids)
    positions, span = torch.arange(30), Span(0, 30, 30, slice(64, 94))
    none = torch.empty(0, dtype=torch.int64)
    with torch.inference_mode():
        logits = machine.decoder.forward(
            Batch(torch.tensor(ids[:30]), positions, positions + 64, [span], none), machine.pool
        )
    assert logits.shape == (0, toy.VOCABULARY)
    assert torch.equal(machine.step((ids[30:], 30, [4, 5, 6])), expected[30:])
