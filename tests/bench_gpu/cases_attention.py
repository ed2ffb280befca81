"""Attention, sampling and sealing: cases as in `cases`."""

from collections.abc import Iterator

import numpy as np
import torch
from confide_kernels.attention import Fixed, Span, Spans, exact, place
from confide_kernels.attention import triton as attention_gpu
from confide_kernels.rope import Cache
from confide_kernels.sampling import naive as sampling_naive
from confide_kernels.sampling import triton as sampling_gpu
from torch import Tensor
from torch.nn import functional

from tests.bench_gpu.cases import Case, same

PAGE_ROWS = 16


def attention(device: str, small: bool) -> Iterator[Case]:
    heads, kv_heads, width = (4, 2, 32) if small else (32, 8, 128)
    sequences, context, prompt = (2, 80, 40) if small else (64, 4096, 8192)
    dtype = torch.float16 if small else torch.bfloat16
    rows = max(sequences * context, prompt)
    cache = Cache(
        torch.randint(-127, 128, (2, rows, kv_heads, width), dtype=torch.int8, device=device),
        torch.rand(2, kv_heads, rows, device=device),
    )
    keys, values = torch.randn(2, rows, kv_heads, width, device=device).to(dtype)
    # Pages, scattered.
    pages = torch.randperm(rows // PAGE_ROWS)
    order = (pages[:, None] * PAGE_ROWS + torch.arange(PAGE_ROWS)).flatten()
    decode = [Span(i, 1, context, order[i * context : (i + 1) * context]) for i in range(sequences)]
    numbers = np.array([(i, 1, context, i * context // PAGE_ROWS) for i in range(sequences)], np.int64)
    where, group = torch.device(device), heads // kv_heads
    # As a graph of the engine has it.
    fixed = Fixed(sequences, context, len(pages), PAGE_ROWS, group, where)
    fixed.update(Spans.paged(numbers, pages.to(torch.int32).numpy(), PAGE_ROWS))
    whole = [Span(0, prompt, prompt, slice(0, prompt))]
    for name, spans, n, placed in (
        ("decode", decode, sequences, fixed.placed),
        ("prefill", whole, prompt, place(Spans.of(whole), group, where)),
    ):
        q = torch.randn(n, heads, width, device=device)
        levels, tops = (q * 40).clamp(-127, 127).to(torch.int8), torch.rand(n, heads, device=device) * 0.1
        floats, peers = q.to(dtype), sdpa(q.to(dtype), keys, values, spans)
        bounded = name == "decode"
        read = sequences * context * kv_heads * width * 2
        operations = 2 * prompt * prompt * heads * width
        # The first query, and all that it sees.
        first = spans[0].context - spans[0].queries + 1
        picked = [Span(0, 1, first, torch.arange(rows)[spans[0].rows][:first])]

        def right(levels=levels, tops=tops, placed=placed, picked=picked) -> bool:
            got = attention_gpu.attend_int8(levels, tops, cache, placed)
            out = exact.attend_int8(
                levels[:1].cpu(), tops[:1].cpu(), Cache(*(x.cpu() for x in cache)), Spans.of(picked)
            )
            return same(tuple(x[:1] for x in got), tuple(out))

        def close(floats=floats, placed=placed, picked=picked) -> bool:
            seen = picked[0].rows
            group = heads // kv_heads
            k, v = (x[seen.to(x.device)].cpu().double().repeat_interleave(group, 1) for x in (keys, values))
            scores = torch.einsum("hd,thd->ht", floats[0].cpu().double(), k) / width**0.5
            expected = torch.einsum("ht,thd->hd", scores.softmax(-1), v)
            return same(attention_gpu.attend(floats, keys, values, placed)[0], expected, 2e-2)

        yield Case(
            f"{name} attention, int8 exact",
            f"{len(spans)} x {spans[0].context}, {heads}/{kv_heads} heads",
            lambda levels=levels, tops=tops, placed=placed: attention_gpu.attend_int8(levels, tops, cache, placed),
            read if bounded else operations,
            "copy" if bounded else "bf16",
            peers,
            right,
        )
        yield Case(
            f"{name} attention, {'bf16' if dtype == torch.bfloat16 else 'fp16'}",
            f"{len(spans)} x {spans[0].context}, {heads}/{kv_heads} heads",
            lambda floats=floats, placed=placed: attention_gpu.attend(floats, keys, values, placed),
            2 * read if bounded else operations,
            "copy" if bounded else "bf16",
            peers,
            close,
        )


def sdpa(q: Tensor, keys: Tensor, values: Tensor, spans: list[Span]) -> dict:
    """torch's own, over keys and values that lie in one piece: what pages would have to be gathered into."""
    if q.device.type != "cuda":
        return {}
    n, heads, width = q.shape
    count, context = len(spans), spans[0].context
    k, v = (
        x[: count * context].view(count, context, -1, width).transpose(1, 2).contiguous() for x in (keys, values)
    )
    query = q.view(count, n // count, heads, width).transpose(1, 2).contiguous()
    causal = n > count
    return {"SDPA": lambda: functional.scaled_dot_product_attention(query, k, v, is_causal=causal, enable_gqa=True)}


def sampling(device: str, small: bool) -> Iterator[Case]:
    n, vocabulary = (2, 150) if small else (64, 151_936)
    logits = torch.randn(n, vocabulary, device=device) * 3
    uniforms = torch.rand(n, dtype=torch.float64, device=device)
    ones, zeros = torch.ones_like(uniforms), torch.zeros_like(uniforms)

    def sort() -> Tensor:
        values, ids = logits.sort(descending=True)
        chances = values.softmax(-1)
        chances = torch.where(chances.cumsum(-1) - chances < 0.9, chances, 0)
        return ids.gather(1, torch.multinomial(chances, 1))

    for name, cuts, nucleus in (
        ("draw", False, False),
        ("draw, top-p", False, True),
        ("draw, top-k, top-p", True, True),
    ):
        top_ks = zeros.long() + (50 if cuts else 0)
        settings = ones, top_ks, ones * 0.9 if nucleus else ones, zeros, uniforms

        def run(settings=settings, cuts=cuts, nucleus=nucleus) -> Tensor:
            return sampling_gpu.sample(logits, *settings, cuts=cuts, nucleus=nucleus)

        def right(settings=settings, run=run) -> bool:
            return same(run()[:2], sampling_naive.sample(logits[:2].cpu(), *(x[:2].cpu() for x in settings)))

        yield Case(name, f"{n}x{vocabulary}", run, logits.numel() * 4, "copy", {"sort": sort}, right)


def sealing(device: str, small: bool) -> Iterator[Case]:
    from confide_kernels.seal import naive
    from confide_kernels.seal import triton as seal_gpu

    count, size = (1, 200) if small else (64, 4 << 20)
    pages = torch.randint(0, 256, (count, size), dtype=torch.uint8, device=device)
    nonces, key = [i.to_bytes(12, "little") for i in range(count)], bytes(range(32))
    yield Case(
        "ChaCha20",
        f"{count} x {size} B",
        lambda: seal_gpu._add_stream(key, nonces, pages),
        2 * pages.numel(),
        "copy",
        {},
        lambda: same(
            seal_gpu.seal(key, nonces[:1], pages[:1], [b""]).data,
            naive.seal(key, nonces[:1], pages[:1], [b""]).data,
        ),
    )
