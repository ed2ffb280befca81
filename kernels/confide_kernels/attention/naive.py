"""The definition in plain torch. Query head h reads the key head `h // (heads // kv_heads)`."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def prefill(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend causally; the queries are the last rows of the keys.

    q: [n, heads, head_dim]; keys, values: [kv_heads, length, head_dim] with length >= n. Returns q's shape.
    """
    count, heads, head_dim = q.shape
    kv_heads, length, _ = keys.shape
    grouped = q.transpose(0, 1).reshape(kv_heads, heads // kv_heads * count, head_dim)
    visible = torch.ones(count, length, dtype=torch.bool).tril_(length - count).repeat(heads // kv_heads, 1)
    out = scaled_dot_product_attention(grouped, keys, values, attn_mask=visible)
    return out.view(heads, count, head_dim).transpose(0, 1)


def decode(q: Tensor, keys: Tensor, values: Tensor, blocks: Tensor, lengths: Tensor) -> Tensor:
    """Attend from one row per sequence to the first `lengths[i]` cached rows of its block `blocks[i]`.

    q: [n, heads, head_dim]; keys, values: [blocks, kv_heads, rows, head_dim]; blocks ascending. Returns q's shape.
    """
    count, heads, head_dim = q.shape
    _, kv_heads, _, _ = keys.shape
    first, last, longest = int(blocks[0]), int(blocks[-1]), int(lengths.max())
    # Neighbouring blocks are read in place; only gaps between them cost a copy.
    used = slice(first, last + 1) if last - first + 1 == count else blocks
    visible = (torch.arange(longest) < lengths[:, None])[:, None, None] if count > 1 else None
    # The query heads of one key head become its rows; enable_gqa gives the same and takes ten times as long.
    grouped = q.view(count, kv_heads, heads // kv_heads, head_dim)
    out = scaled_dot_product_attention(grouped, keys[used, :, :longest], values[used, :, :longest], visible)
    return out.view(count, heads, head_dim)
