"""What is timed: a kernel's run, its work, its peers, and a check of its own against the definition.

Every case comes in two sizes: the real one, and a small one that Triton's interpreter gets through.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from confide_kernels import activation, norm, rope
from confide_kernels.activation import triton as activation_gpu
from confide_kernels.gemm import Product
from confide_kernels.gemm import naive as gemm_naive
from confide_kernels.gemm import triton as gemm_gpu
from confide_kernels.norm import triton as norm_gpu
from confide_kernels.quant import Rows
from confide_kernels.rope import triton as rope_gpu
from confide_kernels.wipe import naive as wipe_naive
from confide_kernels.wipe import triton as wipe_gpu
from torch import Tensor
from torch.nn import functional

Run = Callable[[], object]


class Case(NamedTuple):
    """work: bytes moved, or operations; of: the ceiling that bounds it; check: whether a sample is right."""

    name: str
    shape: str
    run: Run
    work: float
    of: str
    peers: dict[str, Run]
    check: Callable[[], bool]


def same(got: object, expected: object, tolerance: float = 0.0) -> bool:
    """Compare tensors, or tuples of them: to the last bit, or within a tolerance."""
    if isinstance(expected, Tensor):
        assert isinstance(got, Tensor)
        if not tolerance:
            return torch.equal(got.cpu(), expected)
        return torch.allclose(got.cpu().double(), expected.double(), rtol=tolerance, atol=tolerance)
    assert isinstance(got, tuple)
    assert isinstance(expected, tuple)
    return all(same(one, other, tolerance) for one, other in zip(got, expected, strict=True))


def compiled(run: Callable[..., object]) -> Callable[..., object]:
    return torch.compile(run, dynamic=False) if torch.cuda.is_available() else run


def cpu(*values: Tensor) -> tuple[Tensor, ...]:
    return tuple(each[:2].cpu() for each in values)


def elementwise(device: str, small: bool) -> Iterator[Case]:
    n, width, inner = (4, 64, 96) if small else (8192, 4096, 14336)
    residual, added = torch.randn(n, width, device=device), product(n, width, device)
    weight = torch.rand(width, device=device)

    def eager() -> Rows:
        return norm.naive.add_rms_norm_int8(residual, added, 1e-6)

    def right() -> bool:
        part = residual[:2].clone(), Product(added.columns[:2], added.tops[:2])
        got = norm_gpu.add_rms_norm_int8(*part, 1e-6)
        return same(got, norm.naive.add_rms_norm_int8(*cpu(residual), Product(*cpu(*part[1])), 1e-6))

    yield Case(
        "add + RMS norm + int8",
        f"{n}x{width}",
        lambda: norm_gpu.add_rms_norm_int8(residual, added, 1e-6),
        n * width * 13,
        "copy",
        {"eager": eager, "compile": compiled(eager)},
        right,
    )

    def plain() -> Tensor:
        return functional.rms_norm(residual, (width,), weight, 1e-6).to(torch.bfloat16)

    yield Case(
        "RMS norm to bf16",
        f"{n}x{width}",
        lambda: norm_gpu.rms_norm(residual, weight, 1e-6, torch.bfloat16),
        n * width * 6,
        "copy",
        {"eager": plain, "compile": compiled(plain)},
        lambda: same(
            norm_gpu.rms_norm(residual[:2], weight, 1e-6, torch.float32),
            norm.naive.rms_norm(*cpu(residual), weight.cpu(), 1e-6, torch.float32),
            1e-5,
        ),
    )
    gate_up = product(n, 2 * inner, device)

    def silu() -> Rows:
        return activation.naive.silu_mul_int8(gate_up)

    yield Case(
        "SiLU * mul + int8",
        f"{n}x{inner}",
        lambda: activation_gpu.silu_mul_int8(gate_up),
        n * inner * 9,
        "copy",
        {"eager": silu, "compile": compiled(silu)},
        lambda: same(
            activation_gpu.silu_mul_int8(Product(gate_up.columns[:2], gate_up.tops[:2])),
            activation.naive.silu_mul_int8(Product(*cpu(*gate_up))),
        ),
    )
    floats = torch.randn(n, 2 * inner, device=device).bfloat16()

    def silu_float() -> Tensor:
        return activation.naive.silu_mul(floats)

    yield Case(
        "SiLU * mul, bf16",
        f"{n}x{inner}",
        lambda: activation_gpu.silu_mul(floats),
        n * inner * 6,
        "copy",
        {"eager": silu_float, "compile": compiled(silu_float)},
        lambda: same(activation_gpu.silu_mul(floats[:2]), activation.naive.silu_mul(*cpu(floats)), 2e-2),
    )


def rotation(device: str, small: bool) -> Iterator[Case]:
    n, queries, kv_heads, width = (4, 4, 2, 32) if small else (8192, 32, 8, 128)
    heads = rope.Heads(None, torch.rand(width, device=device), torch.rand(width, device=device), 1e-6)
    qkv, places = product(n, (queries + 2 * kv_heads) * width, device), torch.arange(n, device=device)
    turns = rope.table(n, width, 1e6).to(device)
    cache = rope.Cache(
        torch.zeros(2, n, kv_heads, width, dtype=torch.int8, device=device),
        torch.zeros(2, kv_heads, n, device=device),
    )

    def eager() -> tuple[Tensor, Tensor]:
        return rope.naive.rotate_store(qkv, heads, turns, places, cache, places)

    def right() -> bool:
        own = rope.Cache(*(each.cpu().clone() for each in cache))
        got = rope_gpu.rotate_store(
            Product(qkv.columns[:2], qkv.tops[:2]), heads, turns, places[:2], cache, places[:2]
        )
        cpu_heads = rope.Heads(None, *(each.cpu() for each in heads[1:3]), 1e-6)
        there = rope.naive.rotate_store(
            Product(*cpu(*qkv)), cpu_heads, turns.cpu(), *cpu(places), own, *cpu(places)
        )
        return (
            same(got, there)
            and same(cache.data[:, :2], own.data[:, :2])
            and same(cache.tops[..., :2], own.tops[..., :2])
        )

    values = n * (queries + 2 * kv_heads) * width
    yield Case(
        "head norm + RoPE + int8 + store",
        f"{n}x({queries}+2*{kv_heads})x{width}",
        lambda: rope_gpu.rotate_store(qkv, heads, turns, places, cache, places),
        values * 5 + n * 8 * width,
        "copy",
        {"eager": eager, "compile": compiled(eager)},
        right,
    )
    data = torch.zeros(2, n, kv_heads, width, dtype=torch.float16 if small else torch.bfloat16, device=device)
    floats = qkv.floats().to(data.dtype)

    def eager_floats() -> Tensor:
        return rope.naive.rotate_store_floats(floats, heads, turns, places, data, places)

    def close() -> bool:
        own = torch.zeros(2, n, kv_heads, width, dtype=data.dtype)
        got = rope_gpu.rotate_store_floats(floats[:2], heads, turns, places[:2], data, places[:2])
        cpu_heads = rope.Heads(None, *(each.cpu() for each in heads[1:3]), 1e-6)
        there = rope.naive.rotate_store_floats(
            *cpu(floats), cpu_heads, turns.cpu(), *cpu(places), own, *cpu(places)
        )
        return same(got, there, 2e-2) and same(data[:, :2], own[:, :2], 2e-2)

    yield Case(
        "head norm + RoPE + store, bf16",
        f"{n}x({queries}+2*{kv_heads})x{width}",
        lambda: rope_gpu.rotate_store_floats(floats, heads, turns, places, data, places),
        values * 4 + n * 8 * width,
        "copy",
        {"eager": eager_floats, "compile": compiled(eager_floats)},
        close,
    )


def products(device: str, small: bool) -> Iterator[Case]:
    size = 64 if small else 8192
    a, b = (torch.randint(-127, 128, (size, size), device=device, dtype=torch.int8) for _ in range(2))
    scales = torch.rand(size, device=device) * 1e-4
    rows, floats = Rows(a, torch.rand(size, 1, device=device)), torch.randn(size, size, device=device).bfloat16()
    other = floats.t().contiguous()

    def right() -> bool:
        got = gemm_gpu.linear_w8a8(rows, b, scales).columns[:2]
        return same(got, gemm_naive.linear_w8a8(Rows(*cpu(*rows)), b.cpu(), scales.cpu()).columns)

    yield Case(
        "int8 x int8",
        f"{size}^3",
        lambda: gemm_gpu.linear_w8a8(rows, b, scales),
        2 * size**3,
        "int8",
        {"_int_mm": lambda: torch._int_mm(a, b.t()), "cuBLAS bf16": lambda: floats @ other},
        right,
    )
    out = size
    packed = torch.randint(0, 256, (out, size // 2), dtype=torch.uint8, device=device)
    pairs = torch.rand(out, size // 32, 2, device=device).half() / size
    for n in (1, 16):
        x = torch.randn(n, size, device=device)
        # Triton's interpreter gets products of bfloat16 wrong.
        x = x.half() if small else x.bfloat16()
        dense = floats.to(x.dtype)
        few = Rows(a[:n].contiguous(), rows.tops[:n].contiguous())
        peers: dict[str, Run] = {"cuBLAS": lambda x=x, dense=dense: functional.linear(x, dense)}
        yield Case(
            f"W8A8, {n} rows",
            f"{size}^2",
            lambda few=few: gemm_gpu.linear_w8a8(few, b, scales),
            size * out,
            "copy",
            peers,
            lambda few=few: same(
                gemm_gpu.linear_w8a8(few, b, scales).columns,
                gemm_naive.linear_w8a8(Rows(*(each.cpu() for each in few)), b.cpu(), scales.cpu()).columns,
            ),
        )
        yield Case(
            f"W8A16, {n} rows",
            f"{size}^2",
            lambda x=x: gemm_gpu.linear_w8a16(x, b, scales),
            size * out,
            "copy",
            peers,
            lambda x=x: same(
                gemm_gpu.linear_w8a16(x, b, scales)[:2],
                x[:2].cpu().double() @ (b.cpu().double() * scales.cpu().double()[:, None]).t(),
                3e-2,
            ),
        )
        yield Case(
            f"W4A16, {n} rows",
            f"{size}^2",
            lambda x=x: gemm_gpu.linear_w4a16(x, packed, pairs),
            size * out / 2 + pairs.numel() * 2,
            "copy",
            peers,
            lambda x=x: same(
                gemm_gpu.linear_w4a16(x, packed, pairs)[:2],
                gemm_naive.linear_w4a16(x[:2].cpu().double(), packed.cpu(), pairs.cpu()),
                3e-2,
            ),
        )


def pages(device: str, small: bool) -> Iterator[Case]:
    layers, count, page_rows, kv_heads, width = (1, 4, 4, 2, 32) if small else (32, 4096, 16, 8, 128)
    data = torch.ones(layers, 2, count * page_rows, kv_heads, width, dtype=torch.int8, device=device)
    tops = torch.ones(layers, 2, kv_heads, count * page_rows, device=device)
    freed = torch.randperm(count)[: count // 2].to(device)

    def right() -> bool:
        data.fill_(1)
        wipe_gpu.wipe(data, tops, freed, page_rows)
        kept = data.view(layers * 2, count, -1).any(-1).cpu()
        expected = torch.ones_like(kept)
        expected[:, freed.cpu()] = False
        return torch.equal(kept, expected)

    moved = len(freed) * layers * 2 * page_rows * kv_heads * (width + 4)
    yield Case(
        "page wipe",
        f"{len(freed)} of {count} pages, {layers} layers",
        lambda: wipe_gpu.wipe(data, tops, freed, page_rows),
        moved,
        "fill",
        {"index_fill_": lambda: wipe_naive.wipe(data, tops, freed, page_rows)},
        right,
    )


def product(n: int, width: int, device: str) -> Product:
    return Product(torch.randn(n, width, device=device), torch.rand(n, 1, device=device))
