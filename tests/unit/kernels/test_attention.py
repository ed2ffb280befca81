"""Attention against the definition in float64, head by head."""

import hashlib
import math

import pytest
import torch
from confide_kernels.attention import Span, Spans, attend, attend_int8, compiled, exact
from confide_kernels.quant import Rows, to_levels
from confide_kernels.rope import Cache
from torch import Tensor

from tests.fakes import numbers
from tests.fakes.numbers import NOT_FINITE, same

VERSIONS = pytest.mark.parametrize("attend", [exact.attend_int8, compiled.attend_int8])
TOLERANCE = [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
# Chunks and single rows; contexts in consecutive rows and scattered ones; spans of few rows and of many.
PARTS = [
    Span(0, 5, 5, slice(40, 45)),
    Span(5, 1, 1, torch.tensor([3])),
    Span(6, 3, 17, torch.tensor([*range(50, 60), *range(20, 27)])),
    Span(9, 1, 60, slice(0, 60)),
    Span(10, 1, 9, torch.arange(9, 0, -1)),
    Span(11, 9, 33, slice(20, 53)),
    Span(20, 8, 8, torch.tensor([40, 3, 9, 41, 22, 2, 43, 59])),
    Span(28, 7, 12, slice(30, 42)),
]
SPANS, ROWS, COUNT = Spans.of(PARTS), 64, 35
SHAPES = [(1, 1, 2), (9, 3, 64), (4, 4, 10), (16, 8, 32), (7, 1, 128), (2, 2, 256)]


def definition(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend each query row [heads, d] to the rows [rows, kv_heads, d] that it sees."""
    out = torch.full_like(q, math.nan, dtype=torch.float64)
    for start, count, context, where in PARTS:
        for i in range(count):
            seen = torch.arange(len(keys))[where][: context - count + i + 1]
            for head in range(q.shape[1]):
                row, shared = q[start + i, head].double(), head // (q.shape[1] // keys.shape[1])
                scores = keys[seen, shared].double() @ row / math.sqrt(len(row))
                out[start + i, head] = torch.softmax(scores, 0) @ values[seen, shared].double()
    return out


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCE)
def test_attend(heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, tolerance: float) -> None:
    """Every row sees exactly the rows up to its own, and no other."""
    q = torch.randn(COUNT, heads, head_dim).to(dtype)
    keys, values = (torch.randn(ROWS, kv_heads, head_dim).to(dtype) for _ in range(2))
    out = attend(q, keys, values, SPANS)
    assert out.shape == q.shape
    torch.testing.assert_close(out.double(), definition(q, keys, values), rtol=tolerance, atol=tolerance)


def quantised(
    heads: int, kv_heads: int, head_dim: int, sharpness: float = 1.0, spread: float = 0.0
) -> tuple[Tensor, Tensor, Cache]:
    """Return queries, their tops, and the cache. Rows are of sizes up to 2^spread apart."""
    q, stored = torch.randn(COUNT, heads, head_dim), torch.randn(2, ROWS, kv_heads, head_dim)
    stored *= torch.exp2(torch.rand(2, ROWS, 1, 1) * spread)
    (levels, tops, _), (data, data_tops, _) = to_levels(q * sharpness), to_levels(stored)
    cache = Cache(data.to(torch.int8), data_tops[..., 0].transpose(1, 2).contiguous())
    return levels.to(torch.int8), tops[..., 0].contiguous(), cache


def part(arguments: tuple[Tensor, Tensor, Cache], start: int, count: int) -> tuple[Tensor, Tensor, Cache]:
    q, tops, cache = arguments
    return q[start : start + count], tops[start : start + count], cache


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
@pytest.mark.parametrize("sharpness", [0.01, 1.0, 30.0])
def test_attend_int8(heads: int, kv_heads: int, head_dim: int, sharpness: float) -> None:
    """Of quantised rows it is the definition up to the table's steps and half a level, however sharp the scores."""
    q, tops, cache = quantised(heads, kv_heads, head_dim, sharpness)
    keys, values = cache.data * (cache.tops.transpose(1, 2)[..., None] / 127)
    expected = definition(q * (tops[..., None] / 127), keys, values).flatten(1)
    bound = 4e-3 + 4e-3 * expected.abs() + 0.501 / 127 * expected.abs().amax(-1, keepdim=True)
    for version in (exact.attend_int8, compiled.attend_int8, attend_int8):
        rows = version(q, tops, cache, SPANS)
        assert (rows.levels.shape, rows.tops.shape) == ((COUNT, heads * head_dim), (COUNT, 1))
        assert ((numbers.floats(rows) - expected).abs() <= bound).all()


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
@pytest.mark.parametrize("sharpness", [1e-9, 0.1, 1.0, 30.0, 1e6])
@pytest.mark.parametrize("spread", [0, 12, 60])
def test_both_versions_give_the_same_bits(
    heads: int, kv_heads: int, head_dim: int, sharpness: float, spread: float
) -> None:
    """However sharp the scores, and however far apart the sizes of keys and values."""
    arguments = quantised(heads, kv_heads, head_dim, sharpness, spread)
    arguments[2].data[:, 30] = 0
    arguments[2].tops[..., 30] = 1e-30
    found = compiled.attend_int8(*arguments, SPANS)
    assert same(found, exact.attend_int8(*arguments, SPANS))
    assert found.tops.isfinite().all()


@pytest.mark.parametrize("scores", [1, 50, 400, 1 << 30])
@pytest.mark.parametrize("many", [None, 1, 4, 8, 100])
def test_every_way_gives_the_same_bits(scores: int, many: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut anywhere or whole, by products of matrices (from `many` rows on) or row by row, alone or among others."""
    arguments = quantised(9, 3, 64)
    whole = exact.attend_int8(*arguments, SPANS)
    monkeypatch.setattr(exact, "_SCORES", scores)
    if many:
        # What is compiled has its number built in; as plain Python it reads ours.
        monkeypatch.setattr(compiled, "_attend_few", compiled._attend_few.py_func)
        monkeypatch.setattr(compiled, "_MANY", many)
    attend = compiled.attend_int8 if many else exact.attend_int8
    assert same(attend(*arguments, SPANS), whole)
    for start, count, context, rows in PARTS:
        alone = attend(*part(arguments, start, count), Spans.of([Span(0, count, context, rows)]))
        assert same(alone, Rows(*(each[start : start + count] for each in whole)))


@VERSIONS
@pytest.mark.parametrize("count", [7, 8, 9, 30])
def test_a_chunk_is_its_rows(attend, count: int) -> None:
    """A span of many rows has the bits of the same rows one by one, each seeing what it saw amid the span."""
    arguments = part(quantised(6, 2, 32), 0, count)
    context, rows = count + 11, torch.randperm(ROWS)[: count + 11]
    whole = attend(*arguments, Spans.of([Span(0, count, context, rows)]))
    singles = [Span(i, 1, 12 + i, rows[: 12 + i]) for i in range(count)]
    assert same(attend(*arguments, Spans.of(singles)), whole)


@VERSIONS
def test_order_does_not_matter(attend) -> None:
    """A context in any order of rows gives the same bits: nothing rounds on the way."""
    arguments = part(quantised(9, 3, 64, spread=9), 0, 1)
    order = torch.randperm(ROWS)
    spans = [Spans.of([Span(0, 1, ROWS, rows)]) for rows in (slice(0, ROWS), order, order.flip(0))]
    first, *others = (attend(*arguments, each) for each in spans)
    assert all(same(first, other) for other in others)


@VERSIONS
def test_rows_of_others_are_never_read(attend) -> None:
    """Whatever lies in rows that a span does not name, NaN too, changes no bit."""
    q, tops, cache = quantised(4, 2, 16)
    before = attend(q, tops, cache, SPANS)
    used = torch.cat([torch.arange(ROWS)[span.rows] for span in PARTS]).unique()
    others = torch.tensor([row for row in range(ROWS) if row not in used])
    assert len(others)
    cache.data[:, others], cache.tops[..., others] = -128, math.nan
    assert same(attend(q, tops, cache, SPANS), before)


@VERSIONS
@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("fill", [127, -127, 0])
def test_the_ends_of_the_ranges(attend, count: int, fill: int) -> None:
    """Levels all at their bounds over a long context, huge scales, and zeros: the sums stay exact."""
    length, heads = 1 << 15, 2
    size = 1e4 if fill else 0.0
    cache = Cache(torch.full((2, length, 1, 256), fill, dtype=torch.int8), torch.full((2, 1, length), size))
    q = torch.full((count, heads, 256), fill, dtype=torch.int8)
    span = Spans.of([Span(0, count, length, slice(0, length))])
    rows = attend(q, torch.full((count, heads), 1e4), cache, span)
    expected = torch.full((count, heads * 256), math.copysign(size, fill), dtype=torch.float64)
    torch.testing.assert_close(numbers.floats(rows), expected)


@VERSIONS
@pytest.mark.parametrize("kind", NOT_FINITE)
@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("what", ["query", "key", "value"])
def test_what_is_not_finite_shows_in_its_row(attend, kind: str, count: int, what: str) -> None:
    """A row whose query, or a key or value that it sees, is no number, says so in its top; others stay as before.

    The last row alone sees the last key and value. Levels beside such a top may be anything, as zeros.
    """
    q, tops, cache = part(quantised(6, 2, 16), 0, count)
    span, last = Spans.of([Span(0, count, 20, slice(7, 27))]), count - 1
    q[last, 0], cache.data[:, 26, 0] = 127, 127
    before = attend(q, tops, cache, span)
    if what == "query":
        numbers.spoil(tops, (last, 0), kind)
    else:
        numbers.spoil(cache.tops, (int(what == "value"), 0, 26), kind)
    rows = attend(q, tops, cache, span)
    assert not rows.tops[last].isfinite()
    assert same((rows.signed()[:last], rows.tops[:last]), (before.signed()[:last], before.tops[:last]))
    assert rows.signed().ne(-128).all()


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize(
    "rows",
    [
        slice(40, 70),
        slice(64, 94),
        slice(-30, 0),
        torch.arange(40, 70),
        torch.arange(-5, 25),
        torch.full((30,), 2**62),
    ],
)
def test_rows_outside_the_cache_are_refused(rows: slice | Tensor, count: int) -> None:
    """A span whose context the cache does not hold is an error, whatever its length; negative rows are outside."""
    arguments = part(quantised(4, 2, 16), 0, count)
    with pytest.raises(IndexError):
        attend_int8(*arguments, Spans.of([Span(0, count, 30, rows)]))


def test_spans_as_numbers() -> None:
    """The arrays say what the parts say, of slices and lists of rows alike."""
    assert SPANS.numbers[:, :3].tolist() == [list(span[:3]) for span in PARTS]
    for (_, _, context, begins), span in zip(SPANS.numbers, PARTS, strict=True):
        assert SPANS.rows[begins : begins + context].tolist() == torch.arange(ROWS)[span.rows].tolist()
    none = Spans.of([])
    assert (none.numbers.shape, none.rows.shape) == ((0, 4), (0,))


def test_the_table_is_pinned() -> None:
    """Receipts depend on these bits: 2^(30 - i/512), cut to whole numbers, one octave of it."""
    table = exact.table(torch.device("cpu"))
    assert (table.dtype, table.shape, table[0]) == (torch.int32, (512,), 2**30)
    assert (
        hashlib.sha256(table.numpy().tobytes()).hexdigest()
        == "280ead8c1ba16c5b15ef925d2be173e1f8aad88bbb87effc7854e0dcfc1a6393"
    )


def test_the_table_shifted_is_any_step() -> None:
    """Each weight is the greatest w with w^512 <= 2^(24 * 512 - i): 2^(24 - i/512), cut to a whole number."""
    table = exact.table(torch.device("cpu")).tolist()
    # Both sides times 2^512, as the least powers are under one.
    for i in range(exact.LAST):
        weight = table[i % exact.STEPS] >> (i // exact.STEPS + exact.SPARE)
        assert weight**512 << 512 <= 1 << (25 * 512 - i) < (weight + 1) ** 512 << 512
    assert table[0] >> (exact.LAST // exact.STEPS + exact.SPARE) == 0
