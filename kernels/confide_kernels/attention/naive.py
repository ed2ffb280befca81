"""The definition in plain torch: float inside, in whatever order is fast."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from confide_kernels.attention.spans import Spans


def attend(q: Tensor, keys: Tensor, values: Tensor, spans: Spans) -> Tensor:
    """Return what each row attends to, q's shape and dtype.

    q: [n, heads, head_dim]; keys, values: [rows, kv_heads, head_dim] of q's dtype.
    """
    out = torch.empty_like(q)
    for start, count, context, rows in spans.parts:
        piece = slice(start, start + count)
        out[piece] = _attend(q[piece], keys[rows], values[rows], context)
    return out


def _attend(q: Tensor, keys: Tensor, values: Tensor, context: int) -> Tensor:
    count, heads, head_dim = q.shape
    kv_heads = keys.shape[1]
    # The query heads of one key head become its rows; enable_gqa gives the same and takes ten times as long.
    grouped = q.view(count, kv_heads, -1, head_dim).transpose(0, 1).reshape(kv_heads, -1, head_dim)
    visible = None
    if count > 1:
        visible = q.new_ones((count, context), dtype=torch.bool).tril_(context - count)
        visible = visible.repeat_interleave(heads // kv_heads, 0)
    out = scaled_dot_product_attention(grouped, keys.transpose(0, 1), values.transpose(0, 1), visible)
    return out.view(kv_heads, count, -1, head_dim).transpose(0, 1).reshape(q.shape)
