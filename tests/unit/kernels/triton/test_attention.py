"""Attention on GPUs: exact to the last bit of the definition, whatever the splits; in floats close to it."""

import math

import pytest
import torch
from confide_kernels import attention
from confide_kernels.attention import Span, Spans, exact
from confide_kernels.quant import to_levels
from confide_kernels.rope import Cache

from tests.unit.kernels.triton.shared import DEVICE, on_device, require_triton, same_bits

require_triton()
from confide_kernels.attention import tiles  # noqa: E402
from confide_kernels.attention import triton as gpu  # noqa: E402

ROWS = 96
# A chunk, single rows, a few, and so many that they are read as a prompt is; rows in order and scattered.
SPANS = [
    Span(0, 5, 5, slice(40, 45)),
    Span(5, 1, 1, torch.tensor([3])),
    Span(6, 3, 17, torch.tensor([*range(50, 60), *range(20, 27)])),
    Span(9, 1, 70, slice(0, 70)),
    Span(10, 1, 9, torch.arange(9, 0, -1)),
    Span(11, 20, 30, slice(60, 90)),
]
COUNT = 31
SHAPES = [(1, 1, 2), (9, 3, 64), (4, 2, 10), (16, 1, 32), (40, 1, 8), (2, 1, 200)]


def inputs(
    heads: int, kv_heads: int, width: int, sharpness: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, Cache]:
    levels, tops, _ = to_levels(torch.randn(COUNT, heads, width) * sharpness)
    kept, kept_tops, _ = to_levels(torch.randn(2, ROWS, kv_heads, width))
    cache = Cache(kept.to(torch.int8), kept_tops.squeeze(-1).transpose(1, 2).contiguous())
    return levels.to(torch.int8), tops.squeeze(-1), cache


def run(q: torch.Tensor, tops: torch.Tensor, cache: Cache, spans: list[Span], split: int | None = None) -> tuple:
    return gpu.attend_int8(*on_device((q, tops, cache)), Spans.of(spans), split)


@pytest.mark.parametrize(("heads", "kv_heads", "width"), SHAPES)
@pytest.mark.parametrize("sharpness", [0.01, 30.0])
def test_attend_int8(heads: int, kv_heads: int, width: int, sharpness: float) -> None:
    """Few queries and many, in groups of any size, however sharp the scores."""
    arguments = inputs(heads, kv_heads, width, sharpness)
    same_bits(run(*arguments, SPANS), exact.attend_int8(*arguments, Spans.of(SPANS)))


def test_neither_splits_nor_neighbours_show() -> None:
    """Alone or beside others, in one split or several: the same bits."""
    q, tops, cache = inputs(6, 2, 32)
    whole = exact.attend_int8(q, tops, cache, Spans.of(SPANS))
    for start, count, context, rows in SPANS:
        part = slice(start, start + count)
        expected = tuple(each[part] for each in whole)
        for split in (64, 128) if context > 64 else (None,):
            same_bits(run(q[part], tops[part], cache, [Span(0, count, context, rows)], split), expected)


def test_every_way_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of few queries may go the way of many, and the other way about."""
    arguments = inputs(4, 2, 32)
    expected = exact.attend_int8(*arguments, Spans.of(SPANS))
    for bound in (1, 100):
        monkeypatch.setattr("confide_kernels.attention.tiles.MANY_QUERIES", bound)
        same_bits(run(*arguments, SPANS), expected)


def test_rows_of_others_are_never_read() -> None:
    """Whatever lies in rows that a span does not name, NaN too, changes no bit."""
    q, tops, cache = inputs(4, 2, 16)
    before = exact.attend_int8(q, tops, cache, Spans.of(SPANS))
    used = torch.cat([torch.arange(ROWS)[span.rows] for span in SPANS]).unique()
    others = torch.tensor([row for row in range(ROWS) if row not in used])
    assert len(others)
    cache.data[:, others] = -128
    cache.tops[..., others] = math.nan
    same_bits(run(q, tops, cache, SPANS), before)


@pytest.mark.parametrize("what", ["query", "key", "value"])
def test_what_is_not_a_number_stays_in_its_rows(what: str) -> None:
    """A row that sees it comes out as no number; every other has the bits it had."""
    q, tops, cache = inputs(4, 2, 16)
    before = run(q, tops, cache, SPANS)
    if what == "query":
        tops[12] = math.nan
        hit = [12]
    else:
        # The third row of the last span's context, and the one that only its last query sees.
        cache.tops[0 if what == "key" else 1, :, 89] = math.nan
        hit = [30]
    after = run(q, tops, cache, SPANS)
    others = [row for row in range(COUNT) if row not in hit]
    assert not after.tops[hit].isfinite().any()
    same_bits(tuple(each[others] for each in after), tuple(each[others].cpu() for each in before))


@pytest.mark.parametrize("fill", [127, 0])
def test_the_ends_of_the_ranges(fill: int) -> None:
    """Levels all at their bounds, huge scales, and zeros."""
    length, width = 300, 64
    cache = Cache(
        torch.full((2, length, 1, width), fill, dtype=torch.int8),
        torch.full((2, 1, length), 1e4 if fill else 0.0),
    )
    q, tops = torch.full((1, 2, width), fill, dtype=torch.int8), torch.full((1, 2), 1e4)
    spans = [Span(0, 1, length, slice(0, length))]
    same_bits(run(q, tops, cache, spans), exact.attend_int8(q, tops, cache, Spans.of(spans)))


def test_no_spans() -> None:
    q, tops, cache = inputs(2, 1, 16)
    levels, out = run(q[:0], tops[:0], cache, [])
    assert (levels.shape, out.shape) == ((0, 32), (0, 1))


def test_tiles_of_no_rows_change_nothing() -> None:
    """Graphs of a fixed shape are padded with them."""
    q, tops, cache = inputs(4, 2, 16)
    spans = SPANS[3:5]
    own = slice(9, 11)
    placed = tiles.place(Spans.of([s._replace(start=s.start - 9) for s in spans]), 2, torch.device(DEVICE))
    padding = torch.zeros(2, 5, dtype=torch.int64, device=DEVICE)
    few = placed.few._replace(numbers=torch.cat([placed.few.numbers, padding]))
    got = gpu.attend_int8(*on_device((q[own], tops[own], cache)), placed._replace(few=few))
    expected = exact.attend_int8(q, tops, cache, Spans.of(SPANS))
    same_bits(got, tuple(each[own] for each in expected))


@pytest.mark.parametrize(("heads", "kv_heads", "width"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 3e-3)])
@pytest.mark.parametrize("split", [None, 64])
def test_attend(
    heads: int, kv_heads: int, width: int, dtype: torch.dtype, tolerance: float, split: int | None
) -> None:
    """In floats it is the definition up to the precision of the dtype, in one split or two."""
    q = torch.randn(COUNT, heads, width).to(dtype)
    keys, values = (torch.randn(ROWS, kv_heads, width).to(dtype) for _ in range(2))
    keys[95], values[95] = math.nan, math.nan
    got = gpu.attend(*on_device((q, keys, values)), Spans.of(SPANS), split).cpu()
    assert got.dtype == dtype
    expected = attention.naive.attend(q.double(), keys.double(), values.double(), Spans.of(SPANS))
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)
