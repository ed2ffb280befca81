"""Grouped-query attention over paged keys and values, for spans of packed rows.

Query head h reads the key head `h // (heads // kv_heads)`; a span's queries are the last rows of its context.
For GPUs, `place` spans once for all layers of a step, or keep a `Fixed` place for the steps that a graph replays.
"""

from torch import Tensor

from confide_kernels.attention import compiled, exact, naive
from confide_kernels.attention.spans import Span, Spans
from confide_kernels.attention.tiles import Fixed, Placed, place
from confide_kernels.place import on_gpu
from confide_kernels.quant import Rows
from confide_kernels.rope import Cache

__all__ = ["Fixed", "Placed", "Span", "Spans", "attend", "attend_int8", "place"]


def attend(q: Tensor, keys: Tensor, values: Tensor, spans: Spans | Placed) -> Tensor:
    """Return what each row attends to, q's shape and dtype.

    q: [n, heads, head_dim]; keys, values: [rows, kv_heads, head_dim] of q's dtype.
    """
    if on_gpu(q):
        from confide_kernels.attention import triton

        return triton.attend(q, keys, values, spans)
    return naive.attend(q, keys, values, _by_rows(spans))


def attend_int8(q: Tensor, q_tops: Tensor, cache: Cache, spans: Spans | Placed) -> Rows:
    """Return what each row attends to, [n, heads * head_dim], quantised. Exact for up to 2^17 rows of context.

    q: [n, heads, head_dim] int8 without -128, q_tops: [n, heads] float32, what 127 levels stand for.
    """
    if on_gpu(q):
        from confide_kernels.attention import triton

        return triton.attend_int8(q, q_tops, cache, spans)
    if q.is_cpu:
        return compiled.attend_int8(q, q_tops, cache, _by_rows(spans))
    return exact.attend_int8(q, q_tops, cache, _by_rows(spans))


def _by_rows(spans: Spans | Placed) -> Spans:
    if isinstance(spans, Placed) or spans.page_rows != 1:
        raise ValueError("only GPUs take spans that are placed, or of pages")
    return spans
