"""Spans of pages, and the place that a graph keeps: whatever lies in it, the bits are the definition's."""

import numpy as np
import pytest
import torch
from confide_kernels import attention
from confide_kernels.attention import Fixed, Span, Spans, exact, place
from confide_kernels.quant import to_levels
from confide_kernels.rope import Cache

from tests.unit.kernels.triton.shared import DEVICE, on_device, require_triton, same_bits

require_triton()
from confide_kernels.attention import triton as gpu  # noqa: E402

PAGE_ROWS, PAGES, ROWS, HEADS, KV_HEADS, WIDTH = 4, 12, 6, 4, 2, 16
WHERE = torch.device(DEVICE)
# Each slot of a table has room for so many pages.
SLOT = 8


def inputs() -> tuple[torch.Tensor, torch.Tensor, Cache]:
    levels, tops, _ = to_levels(torch.randn(ROWS, HEADS, WIDTH))
    kept, kept_tops, _ = to_levels(torch.randn(2, PAGES * PAGE_ROWS, KV_HEADS, WIDTH))
    cache = Cache(kept.to(torch.int8), kept_tops.squeeze(-1).transpose(1, 2).contiguous())
    return levels.to(torch.int8), tops.squeeze(-1), cache


def spans_of(*parts: tuple[int, int, list[int]]) -> tuple[Spans, Spans]:
    """Each part: queries, context, pages. Return spans of pages, in slots from the last on, and of rows."""
    table = np.full((len(parts), SLOT), -1, np.int32)
    numbers, plain, start = [], [], 0
    for number, (queries, context, pages) in enumerate(parts):
        slot = len(parts) - 1 - number
        table[slot, : len(pages)] = pages
        numbers.append((start, queries, context, slot * SLOT))
        rows = (torch.tensor(pages)[:, None] * PAGE_ROWS + torch.arange(PAGE_ROWS)).flatten()[:context]
        plain.append(Span(start, queries, context, rows))
        start += queries
    return Spans.paged(np.array(numbers, np.int64).reshape(-1, 4), table, PAGE_ROWS), Spans.of(plain)


STEPS = [
    [(1, 9, [3, 0, 7]), (1, 1, [5]), (3, 24, [1, 2, 4, 6, 8, 9])],
    [(1, 32, [11, 10, 9, 8, 7, 6, 5, 4])],
    [],
    [(1, 4, [2]), (1, 5, [3, 4]), (1, 8, [0, 1]), (1, 2, [5]), (1, 3, [6]), (1, 13, [7, 8, 9, 10])],
]


@pytest.mark.parametrize("step", range(4))
def test_spans_of_pages_are_spans_of_their_rows(step: int) -> None:
    """Pages in any order, slots in any order, a last page that is not full: integers and floats."""
    (q, tops, cache), (paged, plain) = inputs(), spans_of(*STEPS[step])
    count = int(plain.numbers[:, 1].sum())
    q, tops = q[:count], tops[:count]
    same_bits(
        gpu.attend_int8(*on_device((q, tops, cache)), paged),
        exact.attend_int8(q, tops, cache, plain),
    )
    floats, (keys, values) = torch.randn(count, HEADS, WIDTH), torch.randn(2, PAGES * PAGE_ROWS, KV_HEADS, WIDTH)
    got = gpu.attend(*on_device((floats, keys, values)), paged).cpu()
    torch.testing.assert_close(got, attention.naive.attend(floats, keys, values, plain), rtol=1e-5, atol=1e-5)


def test_a_prompt_of_pages() -> None:
    """Many queries go another way, over the same pages."""
    levels, tops, _ = to_levels(torch.randn(20, HEADS, WIDTH))
    (_, _, cache), (paged, plain) = inputs(), spans_of((20, 30, [3, 0, 7, 1, 2, 4, 6, 8]))
    q, tops = levels.to(torch.int8), tops.squeeze(-1)
    same_bits(
        gpu.attend_int8(*on_device((q, tops, cache)), paged),
        exact.attend_int8(q, tops, cache, plain),
    )


def test_one_place_serves_every_step() -> None:
    """Its memory never moves, what was launched stays the same, and nothing of the step before is left in it."""
    fixed = Fixed(ROWS, 64, SLOT * ROWS, PAGE_ROWS, HEADS // KV_HEADS, WHERE)
    memory = [x.data_ptr() for x in (fixed.placed.rows, fixed.placed.few.numbers)]
    q, tops, cache = inputs()
    mine = on_device((q, tops, cache))
    floats, (keys, values) = torch.randn(ROWS, HEADS, WIDTH), torch.randn(2, PAGES * PAGE_ROWS, KV_HEADS, WIDTH)
    for step in STEPS:
        paged, plain = spans_of(*step)
        fixed.update(paged)
        count = int(plain.numbers[:, 1].sum())
        expected = exact.attend_int8(q[:count], tops[:count], cache, plain)
        got = gpu.attend_int8(*mine, fixed.placed)
        same_bits(tuple(x[:count] for x in got), tuple(expected))
        got = gpu.attend(*on_device((floats, keys, values)), fixed.placed)[:count].cpu()
        wide = attention.naive.attend(floats[:count], keys, values, plain)
        torch.testing.assert_close(got, wide, rtol=1e-5, atol=1e-5)
    assert memory == [x.data_ptr() for x in (fixed.placed.rows, fixed.placed.few.numbers)]


@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU: graphs are captured and replayed there alone")
def test_a_graph_over_a_place_serves_every_step() -> None:
    """Captured once, it gives each step's bits."""
    fixed = Fixed(ROWS, 64, SLOT * ROWS, PAGE_ROWS, HEADS // KV_HEADS, WHERE)
    q, tops, cache = inputs()
    mine = on_device((q, tops, cache))
    gpu.attend_int8(*mine, fixed.placed)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = gpu.attend_int8(*mine, fixed.placed)
    for step in STEPS:
        paged, plain = spans_of(*step)
        fixed.update(paged)
        graph.replay()
        count = int(plain.numbers[:, 1].sum())
        expected = exact.attend_int8(q[:count], tops[:count], cache, plain)
        same_bits(tuple(x[:count] for x in got), tuple(expected))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([(1, 1, [0])] * 7, "packed rows"),
        ([(1, 33, list(range(9)))], "up to 32 rows"),
        ([(17, 17, [0, 1, 2, 3, 4])], "queries"),
        ([(1, 1, [0])] * 5 + [(2, 2, [0])], "packed rows"),
    ],
)
def test_what_does_not_fit_is_refused(parts: list, reason: str) -> None:
    slot = max(SLOT, *(len(pages) for _, _, pages in parts))
    fixed = Fixed(ROWS, 32, slot * 8, PAGE_ROWS, HEADS // KV_HEADS, WHERE)
    table = np.zeros((len(parts), slot), np.int32)
    starts = np.cumsum([0, *(queries for queries, _, _ in parts)])
    numbers = [(starts[i], *part[:2], i * slot) for i, part in enumerate(parts)]
    with pytest.raises(ValueError, match=reason):
        fixed.update(Spans.paged(np.array(numbers, np.int64), table, PAGE_ROWS))


def test_other_pages_are_refused() -> None:
    """Of another size, or more than the place has."""
    fixed = Fixed(ROWS, 32, SLOT, PAGE_ROWS, 2, WHERE)
    numbers = np.array([[0, 1, 1, 0]], np.int64)
    for table, page_rows in ((np.zeros(1, np.int32), 8), (np.zeros(SLOT + 1, np.int32), PAGE_ROWS)):
        with pytest.raises(ValueError, match="the place is for 8 pages of 4 rows"):
            fixed.update(Spans.paged(numbers, table, page_rows))


@pytest.mark.parametrize(
    ("numbers", "page_rows", "reason"),
    [
        ((0, 1, 5, 0), 3, "power of two"),
        ((0, 2, 1, 0), 4, "queries"),
        ((0, 0, 1, 0), 4, "queries"),
        ((-1, 1, 1, 0), 4, "queries"),
        ((0, 1, 1, -1), 4, "queries"),
        ((0, 1, 9, 0), 4, "pages for all"),
        ((0, 1, 5, 1), 4, "pages for all"),
    ],
)
def test_spans_of_pages_are_checked(numbers: tuple, page_rows: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Spans.paged(np.array([numbers], np.int64), np.zeros((1, 2), np.int32), page_rows)


def test_processors_take_neither() -> None:
    q, tops, cache = inputs()
    paged, plain = spans_of((1, 9, [3, 0, 7]))
    for spans in (paged, place(plain, 2, torch.device("cpu"))):
        with pytest.raises(ValueError, match="only GPUs"):
            attention.attend_int8(q[:1], tops[:1], cache, spans)
        with pytest.raises(ValueError, match="only GPUs"):
            attention.attend(q[:1].float(), *cache.data.float(), spans)


@pytest.mark.parametrize("floats", [True, False])
def test_a_long_prompt_beside_a_long_context_costs_no_room_for_both(
    floats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept for each row of context is kept for the few rows that decode, not for those of a prompt."""
    count, context, sizes = 40, 200, []
    spans = Spans.of([Span(0, 1, context, slice(0, context)), Span(1, count, count, slice(0, count))])
    placed = place(spans, HEADS // KV_HEADS, WHERE)
    assert (placed.few.rows, placed.many.rows) == (1, count)
    q, (keys, values) = torch.randn(count + 1, HEADS, WIDTH), torch.randn(2, context, KV_HEADS, WIDTH)
    cache = Cache(torch.ones(2, context, KV_HEADS, WIDTH, dtype=torch.int8), torch.ones(2, KV_HEADS, context))
    given = on_device((q, keys, values) if floats else (q.to(torch.int8), q[..., 0].abs(), cache))
    for name in ("empty", "zeros", "full"):
        original = getattr(torch, name)

        def counted(*args, original=original, **kwargs) -> torch.Tensor:
            made = original(*args, **kwargs)
            sizes.append(made.numel())
            return made

        monkeypatch.setattr(torch, name, counted)
    attend = gpu.attend if floats else gpu.attend_int8
    attend(*given, placed, 64)
    assert 0 < max(sizes) <= (count + 1) * HEADS * WIDTH < 4 * HEADS * 64 * (count + 1)
