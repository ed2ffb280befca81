"""Operations of the engine. Each is a folder: a facade, which picks by device, its definition in plain torch
(`naive`, `exact`), and the same bits faster: `compiled` for processors, `triton` for GPUs.

Exact operations give bits that depend on their own row alone: not on the batch, the chunking, the threads, the
layout of pages or the order in which anything is summed. Why that holds for every input:

1. Sums are of integers, within a range where every partial sum is representable, so no order rounds:
   - products of rows: |x|, |w| <= 127, or x + 128 <= 255, at most MAX_WIDTH = 2^16 terms: under 2^31, in int32;
   - attention scores: |q|, |k| <= 127 over head_dim terms: under 2^31, in int32;
   - attention weights: at most 2^24 each, in float64: exact for up to 2^29 rows;
   - weighted values: 7-bit digits of the weights times |v| <= 127, over at most 2^17 rows: under 2^31, in int32;
     the three digits are put together in float64, under 2^45, or never taken apart and summed there;
   - squares of a row's 127 levels (norm): under 2^14 each, in float64.
   Clamps and integer types enforce these ranges, whatever comes in.
2. Everything else is element-wise and of operations that IEEE 754 rounds correctly (+, -, *, /, square root,
   conversions), or a maximum. None is fused with another: no addcmul, no lerp, no scaled add but by a power of two.
3. What IEEE 754 leaves open (exp, silu, sines) is looked up in tables, whose bits the tests pin.
4. Rounding scales are taken per row (and head), never over a batch.

A number that is not finite stays in its own row: integers carry it no further, and scales keep it visible.
"""
