"""The same for GPUs, without a sort, to the last bit: a program takes a chunk of a row's vocabulary.

Tokens are told apart by one whole number each, their place: the logit's bits, made to order like it, then the id,
the lower the greater. The k greatest, or the fewest that reach p, are those from some place on: it is found five
bits at a time, from sums of whole numbers by those bits. So a draw reads the logits three times, and ten times more
for each of top-k and top-p.
"""

from typing import Final

import torch
import triton.language as tl
from torch import Tensor

from confide_kernels.gpu import EXACT, ROUND_WIDE, block_of, kernel, kernel_of_any, ordered_bits, part
from confide_kernels.place import send
from confide_kernels.sampling import naive

_CHUNK: Final = 2048
_ID_BITS = tl.constexpr(18)
_IDS = tl.constexpr(1 << 18)
_DIGIT_BITS = tl.constexpr(5)
_DIGITS = tl.constexpr(1 << 5)
_PASSES: Final = 10
_SIGN = tl.constexpr(1 << 31)
_GRID = tl.constexpr(naive.GRID_BITS)
_UNIFORM = tl.constexpr(naive.UNIFORM_BITS)
_STEPS, _LAST = tl.constexpr(naive._STEPS), tl.constexpr(float(naive._LAST))
_OCTAVE = tl.constexpr(naive._STEPS.bit_length() - 1)
_PER_NAT = tl.constexpr(naive._PER_NAT)
_CUBE, _SQUARE, _SLOPE = (tl.constexpr(each) for each in naive._CUBIC)


def sample(
    logits: Tensor,
    temperatures: Tensor,
    top_ks: Tensor,
    top_ps: Tensor,
    min_ps: Tensor,
    uniforms: Tensor,
    chunk: int = _CHUNK,
    cuts: bool | None = None,
    nucleus: bool | None = None,
) -> Tensor:
    """As the definition, for up to 2^18 tokens. Nothing waits for the GPU: a row of which nothing can be drawn, for
    all its logits are -inf or one is inf or not a number, gives -1.

    cuts, nucleus: whether any row has a top_k or a top_p; where not said, seen from settings that lie on the CPU.
    """
    n, vocabulary = logits.shape
    if vocabulary > _IDS.value:
        raise ValueError(f"a vocabulary of more than {_IDS.value} tokens")
    logits, device = logits.contiguous(), logits.device
    if cuts is None:
        cuts = not top_ks.is_cpu or bool((top_ks > 0).any())
    if nucleus is None:
        nucleus = not top_ps.is_cpu or bool((top_ps < 1).any())
    temperatures, top_ks, top_ps, min_ps, uniforms = (
        send(each, device).contiguous() for each in (temperatures, top_ks, top_ps, min_ps, uniforms)
    )
    chunks = -(-vocabulary // chunk)
    ids, best, floors = (torch.zeros(n, dtype=torch.int64, device=device) for _ in range(3))
    sums = torch.empty(n, chunks, dtype=torch.int64, device=device)
    common = logits, vocabulary, temperatures, min_ps, best, floors, naive._table(device)
    grid, row, both = (n, chunks), (n,), block_of(chunks)
    _find_best[grid](logits, vocabulary, best, chunk=chunk, **EXACT)
    if cuts:
        states, bins = _states(n, device)
        _start_count[row](top_ks, vocabulary, states, **EXACT)
        _narrow(grid, common, states, bins, floors, chunk, False)
    _add_up[grid](*common, sums, chunk=chunk, **EXACT)
    if nucleus:
        states, bins = _states(n, device)
        _start_weights[row](top_ps, sums, chunks, states, block=both, **EXACT)
        _narrow(grid, common, states, bins, floors, chunk, True)
        _add_up[grid](*common, sums, chunk=chunk, **EXACT)
    _draw[row](*common, uniforms, sums, chunks, ids, chunk=chunk, block=both, **EXACT)
    return ids


def _states(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each pass and row: the bits found, and what is still needed; and the sums by the next bits."""
    return (
        torch.zeros(_PASSES + 1, n, 2, dtype=torch.int64, device=device),
        torch.zeros(_PASSES, n, _DIGITS.value, dtype=torch.int64, device=device),
    )


def _narrow(
    grid: tuple[int, int],
    common: tuple[Tensor | int, ...],
    states: Tensor,
    bins: Tensor,
    floors: Tensor,
    chunk: int,
    weighs: bool,
) -> None:
    for done in range(_PASSES):
        _narrow_once[grid](
            *common, states, bins, grid[0], done, first=not done, weighs=weighs, chunk=chunk, num_warps=8, **EXACT
        )
    _settle[grid[:1]](states, bins, floors, grid[0], _PASSES, **EXACT)


@part
def _load(
    logits: tl.tensor, vocabulary: tl.tensor, at: tl.tensor, chunk: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Return a chunk's logits, float32, and their places; those beyond the end have none, which is -1."""
    ids = at * chunk + tl.arange(0, chunk)
    own = ids < vocabulary
    row = tl.load(logits + tl.program_id(0).to(tl.int64) * vocabulary + ids, own, float("-inf")).to(tl.float32)
    # Zeros are equal, whatever their signs.
    row = tl.where(row == 0, 0.0, row)
    # What is not a number comes above all, so that it shows.
    row = tl.where(row == row, row, float("nan"))
    places = (ordered_bits(row).to(tl.int64) + _SIGN) * _IDS + (_IDS - 1 - ids)
    return row, tl.where(own, places, -1)


@part
def _weigh(
    row: tl.tensor,
    places: tl.tensor,
    temperatures: tl.tensor,
    min_ps: tl.tensor,
    best: tl.tensor,
    floors: tl.tensor,
    table: tl.tensor,
) -> tl.tensor:
    """Return 2^_GRID * exp((logit - greatest) / temperature), rounded, int64; 0 for what is not kept."""
    i = tl.program_id(0)
    bits = (tl.load(best + i) // _IDS - _SIGN).to(tl.int32)
    greatest = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True).to(tl.float64)
    temperature = tl.load(temperatures + i)
    temperature = tl.where(temperature == 0, 1.0, temperature)
    distance = (greatest - row.to(tl.float64)) / temperature * _PER_NAT
    distance = tl.where(distance < _LAST, distance, _LAST)
    whole = tl.floor(distance)
    rest = distance - whole
    between = ((rest * _CUBE + _SQUARE) * rest + _SLOPE) * rest + 1.0
    steps = whole.to(tl.int64)
    # The table's first octave, halved as often as need be, which is exact.
    halved = ((1023 - (steps >> _OCTAVE)) << 52).to(tl.float64, bitcast=True)
    weight = tl.load(table + (steps & (_STEPS - 1))) * halved * between
    weight = tl.where(distance < _LAST, (weight + ROUND_WIDE) - ROUND_WIDE, 0.0).to(tl.int64)
    bound = tl.load(min_ps + i) * 2.0**_GRID
    least = tl.floor(bound)
    least = least.to(tl.int64) + (bound > least).to(tl.int64)
    kept = (places >= tl.load(floors + i)) & (weight >= least)
    return tl.where(kept, weight, 0)


@part
def _times(a: tl.tensor, b: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return the upper and lower 64 bits of a product of whole numbers."""
    a, b = a.to(tl.uint64), b.to(tl.uint64)
    return tl.math.umulhi(a, b), a * b


@kernel
def _find_best(logits: tl.tensor, vocabulary: tl.tensor, best: tl.tensor, chunk: tl.constexpr) -> None:
    _, places = _load(logits, vocabulary, tl.program_id(1), chunk)
    tl.atomic_max(best + tl.program_id(0), tl.max(places, 0))


@kernel
def _start_count(top_ks: tl.tensor, vocabulary: tl.tensor, states: tl.tensor) -> None:
    """Need k tokens; those of a row without a limit are needed all, and the place found is the least."""
    i = tl.program_id(0)
    k = tl.load(top_ks + i)
    tl.store(states + 2 * i + 1, tl.where((k > 0) & (k < vocabulary), k, vocabulary))


@kernel_of_any(addresses=["top_ps"])
def _start_weights(
    top_ps: tl.tensor, sums: tl.tensor, chunks: tl.tensor, states: tl.tensor, block: tl.constexpr
) -> None:
    """Need top_p * total, rounded up, at least 1: p is a whole number of 53 bits over a power of two."""
    i, c = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    total = tl.sum(tl.load(sums + i * chunks + c, c < chunks, 0), 0)
    bits = tl.load(top_ps + i).to(tl.int64, bitcast=True)
    power = bits >> 52
    mantissa = (bits & ((1 << 52) - 1)) | tl.where(power > 0, 1 << 52, 0).to(tl.int64)
    down = 1075 - tl.maximum(power, 1)
    upper, lower = _times(mantissa, total)
    # down is 52 or more. Shifts by 64 or more are undefined.
    near, far = tl.minimum(down, 63).to(tl.uint64), tl.minimum(tl.maximum(down - 64, 0), 63).to(tl.uint64)
    one = tl.full((), 1, tl.uint64)
    whole = tl.where(down < 64, (upper << (64 - near)) | (lower >> near), upper >> far)
    rest = tl.where(down < 64, lower & ((one << near) - 1), lower | (upper & ((one << far) - 1)))
    needed = tl.where(down < 128, whole.to(tl.int64) + tl.where(rest > 0, 1, 0), 1)
    tl.store(states + 2 * i + 1, tl.maximum(needed, 1))


@part
def _next_state(
    states: tl.tensor, bins: tl.tensor, rows: tl.tensor, done: tl.tensor, first: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Return the bits of the place found by so many passes, and what is needed of those that share them."""
    i = tl.program_id(0).to(tl.int64)
    if first:
        return tl.load(states + 2 * i), tl.load(states + 2 * i + 1)
    at = states + ((done - 1) * rows + i) * 2
    found, needed = tl.load(at), tl.load(at + 1)
    digit = tl.arange(0, _DIGITS)
    amounts = tl.load(bins + ((done - 1) * rows + i) * _DIGITS + digit)
    above = tl.sum(amounts, 0) - tl.cumsum(amounts, 0)
    # The greatest digit that reaches what is needed.
    chosen = tl.max(tl.where(above + amounts >= needed, digit, 0), 0)
    over = tl.sum(tl.where(digit == chosen, above, 0), 0)
    return found * _DIGITS + chosen, needed - over


@kernel_of_any("rows", "done")
def _narrow_once(
    logits: tl.tensor,
    vocabulary: tl.tensor,
    temperatures: tl.tensor,
    min_ps: tl.tensor,
    best: tl.tensor,
    floors: tl.tensor,
    table: tl.tensor,
    states: tl.tensor,
    bins: tl.tensor,
    rows: tl.tensor,
    done: tl.tensor,
    first: tl.constexpr,
    weighs: tl.constexpr,
    chunk: tl.constexpr,
) -> None:
    i = tl.program_id(0).to(tl.int64)
    found, needed = _next_state(states, bins, rows, done, first)
    if done > 0 and tl.program_id(1) == 0:
        at = states + (done * rows + i) * 2
        tl.store(at, found)
        tl.store(at + 1, needed)
    row, places = _load(logits, vocabulary, tl.program_id(1), chunk)
    shift = 50 - _DIGIT_BITS * (done + 1)
    shares = (places >= 0) & (places >> (shift + _DIGIT_BITS) == found)
    # After a pass or two few chunks have any.
    if tl.max(shares.to(tl.int32), 0) > 0:
        # Which of the two is known when this is compiled: the other is left out.
        if weighs:  # noqa: SIM108
            amounts = _weigh(row, places, temperatures, min_ps, best, floors, table)
        else:
            amounts = shares.to(tl.int64)
        amounts = tl.where(shares, amounts, 0)
        own_digit = (places >> shift) & (_DIGITS - 1)
        mine = bins + (done * rows + i) * _DIGITS
        for least in tl.static_range(0, 32, 4):
            digit = least + tl.arange(0, 4)
            same = own_digit[:, None] == digit[None, :]
            tl.atomic_add(mine + digit, tl.sum(tl.where(same, amounts[:, None], 0), 0))


@kernel_of_any("rows", "done")
def _settle(states: tl.tensor, bins: tl.tensor, floors: tl.tensor, rows: tl.tensor, done: tl.tensor) -> None:
    found, _ = _next_state(states, bins, rows, done, False)
    tl.store(floors + tl.program_id(0), tl.maximum(found, tl.load(floors + tl.program_id(0))))


@kernel
def _add_up(
    logits: tl.tensor,
    vocabulary: tl.tensor,
    temperatures: tl.tensor,
    min_ps: tl.tensor,
    best: tl.tensor,
    floors: tl.tensor,
    table: tl.tensor,
    sums: tl.tensor,
    chunk: tl.constexpr,
) -> None:
    row, places = _load(logits, vocabulary, tl.program_id(1), chunk)
    weights = _weigh(row, places, temperatures, min_ps, best, floors, table)
    at = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    tl.store(sums + at, tl.sum(weights, 0))


@kernel_of_any(addresses=["uniforms"])
def _draw(
    logits: tl.tensor,
    vocabulary: tl.tensor,
    temperatures: tl.tensor,
    min_ps: tl.tensor,
    best: tl.tensor,
    floors: tl.tensor,
    table: tl.tensor,
    uniforms: tl.tensor,
    sums: tl.tensor,
    chunks: tl.tensor,
    ids: tl.tensor,
    chunk: tl.constexpr,
    block: tl.constexpr,
) -> None:
    i, c = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    parts = tl.load(sums + i * chunks + c, c < chunks, 0)
    total = tl.sum(parts, 0)
    upper, lower = _times((tl.load(uniforms + i) * 2.0**_UNIFORM).to(tl.int64), total)
    target = ((upper << (64 - _UNIFORM)) | (lower >> _UNIFORM)).to(tl.int64)
    upto = tl.cumsum(parts, 0)
    chosen = tl.sum(tl.where((upto <= target) & (c < chunks), 1, 0), 0)
    before = tl.sum(tl.where(c < chosen, parts, 0), 0)
    row, places = _load(logits, vocabulary, chosen, chunk)
    weights = _weigh(row, places, temperatures, min_ps, best, floors, table)
    within = tl.sum(tl.where(before + tl.cumsum(weights, 0) <= target, 1, 0), 0)
    greedy = _IDS - 1 - tl.load(best + i) % _IDS
    drawn = tl.where(tl.load(temperatures + i) == 0, greedy, chosen * chunk + within)
    tl.store(ids + i, tl.where(total > 0, drawn, -1))
