"""Grouped-query attention over paged keys and values, for spans of packed rows.

Query head h reads the key head `h // (heads // kv_heads)`; a span's queries are the last rows of its context.
"""

from torch import Tensor

from confide_kernels.attention import compiled, exact
from confide_kernels.attention.naive import attend
from confide_kernels.attention.spans import Span, Spans
from confide_kernels.quant import Rows
from confide_kernels.rope import Cache

__all__ = ["Span", "Spans", "attend", "attend_int8"]


def attend_int8(q: Tensor, q_tops: Tensor, cache: Cache, spans: Spans) -> Rows:
    """Return what each row attends to, [n, heads * head_dim], quantised. Exact for up to 2^17 rows of context.

    q: [n, heads, head_dim] int8 without -128, q_tops: [n, heads] float32, what 127 levels stand for.
    """
    if q.is_cpu:
        return compiled.attend_int8(q, q_tops, cache, spans)
    return exact.attend_int8(q, q_tops, cache, spans)
