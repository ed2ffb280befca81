"""Attention against the definition in float64, head by head."""

import hashlib
import math

import pytest
import torch
from confide_kernels.attention import Span, attend, attend_int8
from confide_kernels.attention.exact import _table
from confide_kernels.quant import quantise, to_levels

TOLERANCE = [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
# Chunks and single rows; contexts in consecutive rows and scattered ones.
SPANS = [
    Span(0, 5, 5, slice(40, 45)),
    Span(5, 1, 1, torch.tensor([3])),
    Span(6, 3, 17, torch.tensor([*range(50, 60), *range(20, 27)])),
    Span(9, 1, 60, slice(0, 60)),
    Span(10, 1, 9, torch.arange(9, 0, -1)),
]
ROWS, COUNT = 64, 11
SHAPES = [(1, 1, 2), (9, 3, 64), (4, 4, 10), (16, 8, 32)]


def definition(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: list[Span]) -> torch.Tensor:
    """Attend each query row [heads, d] to the rows [rows, kv_heads, d] that it sees."""
    out = torch.full_like(q, math.nan, dtype=torch.float64)
    for start, count, context, where in spans:
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
    torch.testing.assert_close(out.double(), definition(q, keys, values, SPANS), rtol=tolerance, atol=tolerance)


def quantised(heads: int, kv_heads: int, head_dim: int, sharpness: float = 1.0) -> tuple[list, torch.Tensor]:
    """Return the arguments of attend_int8, and what the definition makes of the very same numbers."""
    q, keys, values = (torch.randn(n, h, head_dim) for n, h in ((COUNT, heads), (ROWS, kv_heads), (ROWS, kv_heads)))
    (levels, tops, _), (k, k_tops), (v, v_tops) = to_levels(q * sharpness), quantise(keys), quantise(values)
    expected = definition(levels * (tops / 127), k * (k_tops / 127), v * (v_tops / 127), SPANS).flatten(1)
    return [levels, tops.squeeze(-1), k, v, k_tops.squeeze(-1).t(), v_tops.squeeze(-1).t()], expected


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
@pytest.mark.parametrize("sharpness", [0.01, 1.0, 30.0])
def test_attend_int8(heads: int, kv_heads: int, head_dim: int, sharpness: float) -> None:
    """Of quantised rows it is the definition up to the table's steps, however sharp the scores."""
    arguments, expected = quantised(heads, kv_heads, head_dim, sharpness)
    torch.testing.assert_close(attend_int8(*arguments, SPANS).double(), expected, rtol=4e-3, atol=4e-3)


def test_every_way_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One key head at a time or all at once, in blocks or whole, alone or beside others."""
    arguments, _ = quantised(9, 3, 64)
    whole = attend_int8(*arguments, SPANS)
    for start, count, context, rows in SPANS:
        part = slice(start, start + count)
        alone = attend_int8(arguments[0][part], arguments[1][part], *arguments[2:], [Span(0, count, context, rows)])
        assert torch.equal(alone, whole[part])
    monkeypatch.setattr("confide_kernels.attention.exact._FEW_HEADS", 0)
    monkeypatch.setattr("confide_kernels.attention.exact._SCORES", 50)
    assert torch.equal(attend_int8(*arguments, SPANS), whole)


def test_order_does_not_matter() -> None:
    """A context in any order of rows gives the same bits: nothing rounds on the way."""
    arguments, _ = quantised(9, 3, 64)
    order = torch.randperm(ROWS)
    spans = [[Span(0, 1, ROWS, rows)] for rows in (slice(0, ROWS), order, order.flip(0))]
    first, *others = (attend_int8(arguments[0][:1], arguments[1][:1], *arguments[2:], span) for span in spans)
    assert all(torch.equal(first, other) for other in others)


def test_rows_of_others_are_never_read() -> None:
    """Whatever lies in rows that a span does not name, NaN too, changes no bit."""
    arguments, _ = quantised(4, 2, 16)
    before = attend_int8(*arguments, SPANS)
    used = torch.cat([torch.arange(ROWS)[span.rows] for span in SPANS]).unique()
    others = torch.tensor([row for row in range(ROWS) if row not in used])
    assert len(others)
    arguments[2][others], arguments[3][others] = -128, -128
    arguments[4][:, others], arguments[5][:, others] = math.nan, math.nan
    assert torch.equal(attend_int8(*arguments, SPANS), before)


@pytest.mark.parametrize("fill", ["extreme", "zero"])
def test_the_ends_of_the_ranges(fill: str) -> None:
    """Levels all at their bounds over a long context, huge scales, and zeros: the sums stay exact."""
    length, heads = 1 << 15, 2
    level = 127 if fill == "extreme" else 0
    keys, values = (torch.full((length, 1, 256), level, dtype=torch.int8) for _ in range(2))
    q, tops = torch.full((1, heads, 256), float(level)), torch.full((1, length), 1e4 if level else 0.0)
    span = Span(0, 1, length, slice(0, length))
    out = attend_int8(q, torch.full((1, heads), 1e4), keys, values, tops, tops, [span])
    torch.testing.assert_close(out, torch.full((1, heads * 256), 1e4 if level else 0.0))


def test_the_table_is_pinned() -> None:
    """Receipts depend on these bits: 2^(24 - i/512), cut to whole numbers."""
    table = _table(torch.device("cpu"))
    assert (table[0], table[512], table[-1]) == (2**24, 2**23, 0)
    assert (table[:-1] >= table[1:]).all()
    assert (
        hashlib.sha256(table.numpy().tobytes()).hexdigest()
        == "ebde92ebe2635a2ad16f29e781ec5633c11055694aabf89bcfa164cf25715910"
    )
