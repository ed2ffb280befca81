"""Compare every operation, as it is on this machine, with its definition: `python -m confide_kernels.selftest`.

A compiler, a driver or a GPU that gets a kernel wrong is found before anybody is served. Fixed numbers, odd shapes;
exact operations to the last bit, others within the bound of their dtype. What a kernel leaves unwritten shows.
"""

import hashlib
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from confide_kernels import activation, attention, gemm, norm, quant, rope, sampling, seal, wipe
from confide_kernels.attention import Fixed, Span, Spans, exact, place
from confide_kernels.gemm import Product
from confide_kernels.place import INTERPRETED, on_gpu
from confide_kernels.quant import Rows
from confide_kernels.rope import Cache, Heads

# Bounds of what is not exact, relative to 1 and to the number itself.
_BOUNDS: Final = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
T = TypeVar("T")

# One at a time: a check sets what torch has for the whole process, and a graph is recorded amid nobody else's work.
# A check takes it; whoever checks and records holds it for both.
BUILDING: Final = threading.RLock()


class Move(NamedTuple):
    """Copies tensors to a device, in tuples too."""

    device: torch.device

    def __call__(self, value: T) -> T:
        if isinstance(value, Tensor):
            return cast("T", value.to(self.device, copy=True))
        if isinstance(value, tuple):
            parts = [self(each) for each in value]
            return cast("T", type(value)(*parts) if hasattr(value, "_fields") else tuple(parts))
        return value


class Pair(NamedTuple):
    """What an operation gave and what its definition did; a bound of 0 asks for the same bits."""

    got: Any
    expected: Any
    bound: float = 0.0


def check(device: torch.device, skipped: Collection[str] = ()) -> list[str]:
    """Return a line for each operation that is at fault, which begins with its name; none where all are right.

    What is skipped by its name is not looked at: a bench may lack what it needs, one that serves skips nothing.
    Takes a second or two on a GPU, beside the time that kernels take to compile where they never were before.
    """
    with BUILDING:
        before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        # Memory is then filled with what no result holds: NaN, and the greatest integers.
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            faults = [(name, _fault(case, device)) for name, case in _CASES.items() if name not in skipped]
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    return [f"{name}: {fault}" for name, fault in faults if fault]


def _fault(case: Callable[[Move], Iterator[Pair]], device: torch.device) -> str:
    try:
        for number, pair in enumerate(case(Move(device))):
            if fault := _differ(*pair):
                return f"in its comparison {number + 1}, {fault}"
    except Exception as fault:  # noqa: BLE001 - whatever a kernel raises is its fault, and is told
        return f"{type(fault).__name__}: {str(fault)[:200]}"
    return ""


def _differ(got: object, expected: object, bound: float) -> str:
    if isinstance(got, Rows) and isinstance(expected, Rows):
        got, expected = (got.signed(), got.tops), (expected.signed(), expected.tops)
    if isinstance(got, tuple) and isinstance(expected, tuple):
        faults = (_differ(one, other, bound) for one, other in zip(got, expected, strict=True))
        return next((fault for fault in faults if fault), "")
    if not (isinstance(got, Tensor) and isinstance(expected, Tensor)):
        return "" if got == expected else "what it says differs"
    got = got.cpu()
    if got.shape != expected.shape or (not bound and got.dtype != expected.dtype):
        return f"{got.dtype} of shape {tuple(got.shape)} should be {expected.dtype} of {tuple(expected.shape)}"
    if bound:
        same = torch.isclose(got.double(), expected.double(), rtol=bound, atol=bound)
    else:
        same = (got == expected) | ~(got.isfinite() | expected.isfinite())
    wrong = int((~same).sum())
    return f"{wrong} of {same.numel()} numbers differ from the definition" if wrong else ""


def _dtypes(move: Move) -> list[torch.dtype]:
    """Triton's interpreter gets products of bfloat16 wrong."""
    floats = [torch.float32, torch.float16]
    return [*floats, torch.bfloat16] if move.device.type == "cuda" else floats


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=_draw(sum(shape)))


def _levels(*shape: int) -> Tensor:
    return torch.randint(-127, 128, shape, generator=_draw(sum(shape)), dtype=torch.int8)


def _tops(*shape: int) -> Tensor:
    return torch.rand(shape, generator=_draw(sum(shape))) + 0.01


def _product(n: int, out: int) -> Product:
    sums = torch.randint(-200_000, 200_000, (n, out), generator=_draw(n + out), dtype=torch.int32)
    return Product(sums * (_tops(out) * 1e-5), _tops(n, 1))


def _odd_rows(width: int) -> Tensor:
    """Zeros, tiny, huge, halves between levels, and what is not finite."""
    x = _normal(6, width)
    x[0] = 0
    x[1] *= 1e-37
    x[2] *= 1e37
    x[3] = torch.arange(width) % 255 / 2 - 63.5
    x[4, width // 2], x[5, -1] = torch.nan, torch.inf
    return x


# Both are computed on the processor, whose exp, sin and cos are a library's: every node must have these very bits.
_TABLES: Final = (
    "0c56d852b4dcea99724028ae97e8adb40767fb9d2f4da6357787a08bafa99f86",
    "7bce4f4b8bb623ad83a958b9834e36de6fc238a5d62aa7e578d84253bf57ccd5",
)


def _tables(move: Move) -> Iterator[Pair]:
    silu = activation.silu_table(torch.device("cpu"))
    tables = silu.nan_to_num(7.0), rope.table(4096, 128, 1e6)
    for table, digest in zip(tables, _TABLES, strict=True):
        yield Pair(hashlib.sha256(table.numpy().tobytes()).hexdigest(), digest)
    yield Pair(activation.silu_table(move.device), silu)


def _quantise(move: Move) -> Iterator[Pair]:
    for x in (_normal(3, 70), _odd_rows(1030)):
        yield Pair(quant.quantise(move(x)), quant.naive.quantise(x))


def _add_rms_norm_int8(move: Move) -> Iterator[Pair]:
    for x, added in (
        (_normal(3, 63), _product(3, 63)),
        (_odd_rows(70), None),
        (_normal(2, 1030), _product(2, 1030)),
    ):
        residual = move(x)
        got = norm.add_rms_norm_int8(residual, move(added), 1e-6)
        yield Pair((got, residual), (norm.naive.add_rms_norm_int8(x, added, 1e-6), x))


def _rms_norm(move: Move) -> Iterator[Pair]:
    x, weight = _normal(3, 1030) * 7, _tops(1030)
    for dtype, bound in ((dtype, _BOUNDS[dtype]) for dtype in _dtypes(move)):
        expected = norm.naive.rms_norm(x, weight, 1e-6, torch.float32)
        yield Pair(norm.rms_norm(*move((x, weight)), 1e-6, dtype), expected, bound)
    yield Pair(
        norm.rms_norm(move(x), None, 1e-6, torch.float32), norm.naive.rms_norm(x, None, 1e-6, torch.float32), 1e-5
    )


def _silu_mul(move: Move) -> Iterator[Pair]:
    for dtype in _dtypes(move):
        x = (_normal(3, 2 * 1037) * 4).to(dtype)
        yield Pair(activation.silu_mul(move(x)), activation.naive.silu_mul(x.float()), _BOUNDS[dtype])


def _silu_mul_int8(move: Move) -> Iterator[Pair]:
    gate_up = _product(5, 2 * 131)
    gate_up.tops[:] = torch.tensor([[1.0], [1e6], [1e-9], [torch.nan], [0.0]])
    yield Pair(activation.silu_mul_int8(move(gate_up)), activation.naive.silu_mul_int8(gate_up))


def _rotations() -> Iterator[tuple[Product, Heads, Tensor, Tensor, Cache, Tensor]]:
    """Of each: products, what heads have, turns, positions, a cache whose rows nobody has written, and rows."""
    for queries, kv_heads, width, biased, normed in ((3, 1, 10, True, False), (4, 2, 128, False, True)):
        out = (queries + 2 * kv_heads) * width
        weights = _tops(width) if normed else None
        heads = Heads(_normal(out) if biased else None, weights, weights, 1e-6)
        cache = Cache(
            torch.full((2, 9, kv_heads, width), 101, dtype=torch.int8), torch.full((2, kv_heads, 9), torch.nan)
        )
        places = torch.tensor([0, 19, 7]), torch.tensor([8, 0, 3])
        yield _product(3, out), heads, rope.table(20, width, 1e4), places[0], cache, places[1]


def _rotate_store(move: Move) -> Iterator[Pair]:
    for qkv, heads, turns, positions, cache, rows in _rotations():
        kept = move(cache)
        got = rope.rotate_store(*move((qkv, heads, turns, positions)), kept, move(rows))
        expected = rope.naive.rotate_store(qkv, heads, turns, positions, cache, rows)
        yield Pair((*got, *kept), (*expected, *cache))


def _rotate_store_floats(move: Move) -> Iterator[Pair]:
    for dtype in _dtypes(move):
        for qkv, heads, turns, positions, cache, rows in _rotations():
            x, data = qkv.floats().to(dtype), cache.data.to(dtype)
            kept = move(data)
            got = rope.rotate_store_floats(*move((x, heads, turns, positions)), kept, move(rows))
            expected = rope.naive.rotate_store_floats(x, heads, turns, positions, data, rows)
            yield Pair((got, kept), (expected, data), _BOUNDS[dtype])


# A chunk, a single row, a few over scattered rows, and so many that they are read as a prompt is.
_SPANS: Final = [
    Span(0, 5, 5, slice(40, 45)),
    Span(5, 1, 70, slice(0, 70)),
    Span(6, 3, 17, torch.tensor([*range(50, 60), *range(20, 27)])),
    Span(9, 20, 30, slice(60, 90)),
]
_ROWS, _COUNT = 96, 29
_HEADS: Final = [(9, 3, 64), (4, 2, 10)]


def _attended(heads: int, kv_heads: int, width: int) -> tuple[Tensor, Tensor, Cache]:
    q, tops, _ = quant.to_levels(_normal(_COUNT, heads, width) * 3)
    kept, kept_tops, _ = quant.to_levels(_normal(2, _ROWS, kv_heads, width))
    cache = Cache(kept.to(torch.int8), kept_tops.squeeze(-1).transpose(1, 2).contiguous())
    return q.to(torch.int8), tops.squeeze(-1), cache


def _attend_int8(move: Move) -> Iterator[Pair]:
    for heads, kv_heads, width in _HEADS:
        q, tops, cache = _attended(heads, kv_heads, width)
        expected = exact.attend_int8(q, tops, cache, Spans.of(_SPANS))
        yield Pair(attention.attend_int8(*move((q, tops, cache)), Spans.of(_SPANS)), expected)
    if not on_gpu(move(q)):
        return
    # Over pages of sixteen rows: as graphs of a step do it, then as others do.
    numbers, pages = np.array([[0, 1, 40, 2], [1, 2, 90, 0]], np.int64), np.array([1, 5, 0, 3, 2, 4], np.int32)
    order = (torch.from_numpy(pages).long()[:, None] * 16 + torch.arange(16)).flatten()
    plain = Spans.of([Span(0, 1, 40, order[32:72]), Span(1, 2, 90, order[:90])])
    paged, few = Spans.paged(numbers, pages, 16), (q[:3], tops[:3], cache)
    expected = exact.attend_int8(*few, plain)
    fixed = Fixed(3, _ROWS, 6, 16, heads // kv_heads, move.device)
    fixed.update(paged)
    for placed in (fixed.placed, place(paged, heads // kv_heads, move.device)):
        yield Pair(attention.attend_int8(*move(few), placed), expected)


def _attend(move: Move) -> Iterator[Pair]:
    for dtype in _dtypes(move):
        for heads, kv_heads, width in _HEADS:
            q, keys, values = (
                _normal(n, h, width).to(dtype)
                for n, h in ((_COUNT, heads), (_ROWS, kv_heads), (_ROWS + 1, kv_heads))
            )
            values = values[:_ROWS].contiguous()
            keys[95], values[95] = torch.nan, torch.nan
            expected = attention.naive.attend(q.double(), keys.double(), values.double(), Spans.of(_SPANS))
            yield Pair(attention.attend(*move((q, keys, values)), Spans.of(_SPANS)), expected, _BOUNDS[dtype])


def _linear_w8a8(move: Move) -> Iterator[Pair]:
    for n, width, out in ((1, 576, 40), (17, 100, 33), (70, 65, 130)):
        given = Rows(_levels(n, width), _tops(n, 1)), _levels(out, width), _tops(out)
        rows, weight, scales = move(given)
        expected = gemm.naive.linear_w8a8(*given)
        yield Pair(gemm.linear_w8a8(rows, gemm.pack_w8a8(weight), scales), expected)
    ends, one = torch.full((1, 4096), 127, dtype=torch.int8), torch.ones(1)
    got = gemm.linear_w8a8(Rows(*move((ends, one[:, None]))), gemm.pack_w8a8(move(ends.neg())), move(one))
    yield Pair(got.columns, torch.full((1, 1), -(127.0**2) * 4096))


def _linear_w8a16(move: Move) -> Iterator[Pair]:
    for dtype in _dtypes(move):
        for n, width, out in ((1, 2048, 9), (17, 96, 40)):
            x, weight, scales = _normal(n, width).to(dtype), _levels(out, width), _tops(out) / 127 / width**0.5
            expected = x.double() @ (weight * scales.double()[:, None]).t()
            yield Pair(gemm.linear_w8a16(*move((x, weight, scales))), expected, _BOUNDS[dtype])


def _linear_w4a16(move: Move) -> Iterator[Pair]:
    for dtype in _dtypes(move):
        for n, width, out in ((1, 64, 33), (17, 96, 48)):
            x, weight = _normal(n, width).to(dtype), _levels(out, width // 2).view(torch.uint8)
            scales = (_normal(out, width // 32, 2) / 16 / width**0.5).half()
            expected = gemm.naive.linear_w4a16(x.double(), weight, scales)
            own = gemm.pack_w4a16(*move((weight, scales)), dtype)
            yield Pair(gemm.linear_w4a16(move(x), *own), expected, _BOUNDS[dtype])


def _sample(move: Move) -> Iterator[Pair]:
    settings = [
        (0.0, 0, 1.0, 0.0, 0.3),
        (0.7, 0, 1.0, 0.3, 0.99),
        (2.0, 40, 0.9, 0.02, 0.97),
    ]
    wide = torch.tensor(settings, dtype=torch.float64)
    given = wide[:, 0], wide[:, 1].long(), *wide[:, 2:].t()
    logits = (_normal(len(settings), 2100) * 3).mul_(4).round_().div_(4)
    yield Pair(sampling.sample(move(logits), *given), sampling.naive.sample(logits, *given))
    plain = tuple(each[:2] for each in given)
    yield Pair(sampling.sample(move(logits[:2]), *move(plain)), sampling.naive.sample(logits[:2], *plain))


def _wipe(move: Move) -> Iterator[Pair]:
    cache = torch.ones(2, 2, 15, 3, 20, dtype=torch.int8), torch.ones(2, 2, 3, 15)
    kept, pages = move(cache), torch.tensor([4, 1])
    wipe.wipe(*kept, move(pages), 3)
    wipe.naive.wipe(*cache, pages, 3)
    yield Pair(kept, cache)


def _seal(move: Move) -> Iterator[Pair]:
    key, contexts = bytes(range(32)), [b"", b"pages of a test"]
    nonces = [i.to_bytes(seal.NONCE_BYTES, "little") for i in (1, 1 << 90)]
    pages = _levels(2, 700).view(torch.uint8)
    sealed = seal.seal(key, nonces, move(pages), contexts)
    yield Pair(tuple(sealed), tuple(seal.naive.seal(key, nonces, pages, contexts)))
    opened = move(torch.zeros_like(pages))
    yield Pair((seal.unseal(key, sealed, contexts, opened), opened), ([True, True], pages))
    sealed.data[1, 699] ^= 1
    good = seal.unseal(key, sealed, contexts, opened)
    yield Pair((good, opened), ([True, False], pages * torch.tensor([[1], [0]], dtype=torch.uint8)))


_CASES: Final[dict[str, Callable[[Move], Iterator[Pair]]]] = {
    "tables of silu and rope": _tables,
    "quant.quantise": _quantise,
    "norm.add_rms_norm_int8": _add_rms_norm_int8,
    "norm.rms_norm": _rms_norm,
    "activation.silu_mul": _silu_mul,
    "activation.silu_mul_int8": _silu_mul_int8,
    "rope.rotate_store": _rotate_store,
    "rope.rotate_store_floats": _rotate_store_floats,
    "attention.attend_int8": _attend_int8,
    "attention.attend": _attend,
    "gemm.linear_w8a8": _linear_w8a8,
    "gemm.linear_w8a16": _linear_w8a16,
    "gemm.linear_w4a16": _linear_w4a16,
    "sampling.sample": _sample,
    "wipe.wipe": _wipe,
    "seal.seal": _seal,
}


def main() -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else "interpreted" if INTERPRETED else "processor"
    faults = check(device)
    print(*faults, f"{where}: {len(_CASES)} operations, {len(faults)} at fault", sep="\n", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
