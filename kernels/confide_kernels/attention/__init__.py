"""Grouped-query attention over paged keys and values, for spans of packed rows. `attend_int8` is exact.

Query head h reads the key head `h // (heads // kv_heads)`; a span's queries are the last rows of its context.
"""

from confide_kernels.attention.exact import attend_int8
from confide_kernels.attention.naive import attend
from confide_kernels.attention.spans import Span

__all__ = ["Span", "attend", "attend_int8"]
