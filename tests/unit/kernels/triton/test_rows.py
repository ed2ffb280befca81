"""Kernels that take a row at a time, to the last bit: quantise, norms, activation, rotation."""

import pytest
import torch
from confide_kernels import activation, norm, quant, rope

from tests.unit.kernels.triton.shared import DEVICE, check, on_device, product, require_triton, same_bits, strided

require_triton()
from confide_kernels.activation import triton as gpu_activation  # noqa: E402
from confide_kernels.norm import triton as gpu_norm  # noqa: E402
from confide_kernels.quant import triton as gpu_quant  # noqa: E402
from confide_kernels.rope import triton as gpu_rope  # noqa: E402

SHAPES = [(1, 1), (3, 63), (4, 576), (2, 1030), (0, 8)]


def odd_rows(width: int) -> torch.Tensor:
    """Zeros, tiny, subnormal, huge, halves between levels, and rows that are not finite."""
    x = torch.randn(9, width)
    x[0] = 0
    x[1] *= 1e-37
    x[2] *= 1e-42
    x[3] *= 1e37
    x[4] = torch.arange(width) % 255 / 2 - 63.5
    x[4, 0] = 127
    x[5, width // 2], x[6, -1], x[7, 0] = torch.nan, torch.inf, -torch.inf
    return x


@pytest.mark.parametrize(("n", "width"), SHAPES)
def test_quantise(n: int, width: int) -> None:
    check(gpu_quant.quantise, quant.naive.quantise, torch.randn(n, width) * 3)


def test_quantise_odd_rows_and_strides() -> None:
    check(gpu_quant.quantise, quant.naive.quantise, odd_rows(70))
    x = torch.randn(5, 33)
    same_bits(gpu_quant.quantise(strided(x).to(DEVICE)), quant.naive.quantise(x))


@pytest.mark.parametrize(("n", "width"), SHAPES)
@pytest.mark.parametrize("adds", [True, False])
def test_add_rms_norm_int8(n: int, width: int, adds: bool) -> None:
    """The residual, the levels and the scales are those of the definition."""
    added = product(n, width) if adds else None
    check(gpu_norm.add_rms_norm_int8, norm.naive.add_rms_norm_int8, torch.randn(n, width), added, 1e-5)


def test_add_rms_norm_int8_of_odd_rows() -> None:
    check(gpu_norm.add_rms_norm_int8, norm.naive.add_rms_norm_int8, odd_rows(70), None, 1e-6)


def test_add_rms_norm_int8_in_a_view() -> None:
    """A residual that lies in a wider tensor is changed where it lies, and nowhere else."""
    x, added = torch.randn(3, 40), product(3, 40)
    view = strided(x).to(DEVICE)
    wide = torch.full((3, 90), 55.0, device=DEVICE)
    wide[:, 4:84:2] = view
    got = gpu_norm.add_rms_norm_int8(wide[:, 4:84:2], on_device(added), 1e-5)
    expected = norm.naive.add_rms_norm_int8(x, added, 1e-5)
    same_bits(got, expected)
    same_bits(wide[:, 4:84:2].contiguous(), x)
    assert (wide[:, 5::2] == 55).all()
    assert (wide[:, :4] == 55).all()


@pytest.mark.parametrize("kernel", ["quantise", "norm", "silu"])
def test_a_row_does_not_see_its_neighbours(kernel: str) -> None:
    """A row beside one that is not finite has the bits that it has alone."""
    x = odd_rows(48)
    added = product(9, 96)
    added.tops[5], added.tops[6] = torch.nan, torch.inf
    run = {
        "quantise": lambda part: gpu_quant.quantise(on_device(x[part])),
        "norm": lambda part: gpu_norm.add_rms_norm_int8(on_device(x[part]), None, 1e-5),
        "silu": lambda part: gpu_activation.silu_mul_int8(
            on_device(type(added)(added.columns[part], added.tops[part]))
        ),
    }[kernel]
    together = run(slice(0, 9))
    for i in range(9):
        same_bits(run(slice(i, i + 1)), tuple(each[i : i + 1].cpu() for each in together))


@pytest.mark.parametrize(("n", "width"), [(1, 1), (3, 63), (5, 576), (0, 4)])
def test_rms_norm(n: int, width: int) -> None:
    x, weight = torch.randn(n, width) * 7, torch.rand(width)
    got = gpu_norm.rms_norm(strided(x).to(DEVICE), on_device(weight), 1e-5, torch.float32)
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    torch.testing.assert_close(got.cpu().double(), expected, rtol=1e-6, atol=1e-6)
    half = gpu_norm.rms_norm(on_device(x), None, 1e-5, torch.float16)
    torch.testing.assert_close(half.cpu().double(), expected / weight.double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("n", "width"), [(1, 1), (3, 63), (4, 1536), (0, 8)])
@pytest.mark.parametrize("size", [1.0, 100.0, 1e6])
def test_silu_mul_int8(n: int, width: int, size: float) -> None:
    """Gates of every size, beyond float16's too."""
    check(gpu_activation.silu_mul_int8, activation.naive.silu_mul_int8, product(n, 2 * width, size))


def test_silu_mul_int8_of_odd_rows() -> None:
    """Subnormal halves, infinities and what is no number come out as the definition has them."""
    gate_up = product(5, 130)
    gate_up.tops[:] = torch.tensor([[1e-6], [1e-9], [torch.inf], [torch.nan], [0.0]])
    check(gpu_activation.silu_mul_int8, activation.naive.silu_mul_int8, gate_up)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)]
)
def test_silu_mul(dtype: torch.dtype, tolerance: float) -> None:
    x = (torch.randn(3, 2 * 1037) * 4).to(dtype)
    expected = activation.naive.silu_mul(x)
    for given in (x, strided(x)):
        got = gpu_activation.silu_mul(given.to(DEVICE)).cpu()
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


HEADS = [(1, 1, 2), (3, 1, 10), (9, 3, 64), (4, 2, 128)]


def rotation(queries: int, kv_heads: int, width: int, biased: bool, normed: bool | str) -> tuple:
    n, cache_rows, out = 4, 11, (queries + 2 * kv_heads) * width
    qkv = product(n, out)
    heads = rope.Heads(
        torch.randn(out) if biased else None,
        torch.rand(width) if normed in (True, "queries") else None,
        torch.rand(width) if normed in (True, "keys") else None,
        1e-6,
    )
    cache = rope.Cache(
        torch.full((2, cache_rows, kv_heads, width), -111, dtype=torch.int8),
        torch.full((2, kv_heads, cache_rows), torch.nan),
    )
    return qkv, heads, rope.table(20, width, 1e4), torch.tensor([0, 19, 7, 7]), cache, torch.tensor([10, 0, 3, 4])


def run_both(arguments: tuple) -> tuple:
    """Return queries, tops and cache after the kernel; assert that they are the definition's."""
    mine, theirs = (
        on_device(arguments),
        tuple(type(x)(*(y.clone() for y in x)) if isinstance(x, rope.Cache) else x for x in arguments),
    )
    got, expected = gpu_rope.rotate_store(*mine), rope.naive.rotate_store(*theirs)
    same_bits((*got, *mine[4]), (*(x.contiguous() for x in expected), *theirs[4]))
    return (*got, *mine[4])


@pytest.mark.parametrize(("queries", "kv_heads", "width"), HEADS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("normed", [True, False, "queries", "keys"])
def test_rotate_store(queries: int, kv_heads: int, width: int, biased: bool, normed: bool | str) -> None:
    """Queries and the cache are the definition's; cache rows that are not named stay as they were."""
    run_both(rotation(queries, kv_heads, width, biased, normed))


@pytest.mark.parametrize("normed", [True, False])
def test_rotate_store_of_odd_rows(normed: bool) -> None:
    """Zeros, and rows that are not finite, which change no other."""
    arguments = rotation(3, 1, 10, False, normed)
    clean = run_both(arguments)
    arguments[0].tops[1:] = torch.tensor([[0.0], [torch.nan], [torch.inf]])
    odd = run_both(arguments)
    same_bits((odd[0][0], odd[1][0], odd[2][:, 10]), (clean[0][0].cpu(), clean[1][0].cpu(), clean[2][:, 10].cpu()))


@pytest.mark.parametrize(("position", "row"), [(-1, 0), (20, 0), (0, -1), (0, 11)])
def test_rotate_store_outside_its_tables(position: int, row: int) -> None:
    """Nothing is stored, and the row's tops say so; the others are as ever."""
    arguments = rotation(3, 1, 10, False, False)
    good = gpu_rope.rotate_store(*on_device(arguments))
    arguments[3][1], arguments[5][1] = position, row
    mine = on_device(arguments)
    _, tops = gpu_rope.rotate_store(*mine)
    assert tops[1].isnan().all()
    same_bits(tops[[0, 2, 3]], good[1][[0, 2, 3]].cpu())
    kept, cache_tops = (x.cpu() for x in mine[4])
    untouched = [x for x in range(11) if x not in (10, 3, 4)]
    assert (kept[:, untouched] == -111).all()
    assert cache_tops[..., untouched].isnan().all()


@pytest.mark.parametrize(("queries", "kv_heads", "width"), HEADS)
@pytest.mark.parametrize(("biased", "normed"), [(True, False), (False, True), (False, "keys")])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 2e-3)])
def test_rotate_store_floats(
    queries: int, kv_heads: int, width: int, biased: bool, normed: bool | str, dtype: torch.dtype, tolerance: float
) -> None:
    """In floats, up to their last bits; rows that are not named, and places out of range, stay as they were."""
    qkv, heads, turns, positions, cache, rows = rotation(queries, kv_heads, width, biased, normed)
    x, data = qkv.floats().to(dtype), torch.full_like(cache.data, 55, dtype=dtype)
    mine = on_device(data)
    expected = rope.naive.rotate_store_floats(x, heads, turns, positions, data, rows)
    before = x.clone()
    got = gpu_rope.rotate_store_floats(*on_device((strided(x), heads, turns, positions)), mine, on_device(rows))
    assert torch.equal(x, before)
    assert got.dtype == dtype
    for one, other in ((got, expected), (mine, data)):
        torch.testing.assert_close(one.cpu(), other, rtol=tolerance, atol=tolerance)
    untouched = [x for x in range(11) if x not in rows]
    assert (mine[:, untouched] == 55).all()

    mine = on_device(torch.full_like(data, 55))
    rows[1], positions[2] = -1, 20
    odd = gpu_rope.rotate_store_floats(*on_device((x, heads, turns, positions)), mine, on_device(rows))
    assert odd[[1, 2]].isnan().all()
    same_bits(odd[[0, 3]], got[[0, 3]].cpu())
    assert (mine[:, [x for x in range(11) if x not in (10, 4)]] == 55).all()
