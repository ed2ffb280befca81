"""Products on GPUs: of integers to the last bit, of floats within their dtype's bound."""

import pytest
import torch
from confide_kernels import quant
from confide_kernels.gemm import naive
from confide_kernels.quant import Rows

from tests.unit.kernels.triton.shared import DEVICE, check, on_device, require_triton, same_bits, strided

require_triton()
from confide_kernels.gemm import triton as gpu  # noqa: E402

SHAPES = [(1, 1, 1), (3, 100, 33), (17, 576, 40), (70, 65, 130), (0, 32, 8)]
# Tiles other than the chosen ones: one part and several, panels that end amid, depths that do not divide the width.
TILES = [gpu.Tiles(16, 32, 32, 1, 4, 3), gpu.Tiles(16, 16, 32, 3, 4, 3), gpu.Tiles(32, 64, 64, 2, 4, 3)]


def levels(rows: int, width: int) -> torch.Tensor:
    return torch.randint(-127, 128, (rows, width), dtype=torch.int8)


@pytest.mark.parametrize("tiles", TILES)
def test_tiles_do_not_show(tiles: gpu.Tiles) -> None:
    """Whatever the layout, the tiles and the parts of the depth: the same bits."""
    a, b, scales = levels(19, 200), levels(77, 200), torch.rand(77)
    expected = (a.long() @ b.long().t()).to(torch.int32)
    for left, right in ((a, b.t()), (strided(a), b.t().contiguous())):
        got = gpu._multiply(left.to(DEVICE), right.to(DEVICE), scales.to(DEVICE), tiles)
        same_bits(got, expected * scales)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("n", [1, 16, 64, 65, 256, 300, 8192])
@pytest.mark.parametrize(("out", "width"), [(1024, 3072), (4096, 1024), (151_936, 1024), (8192, 8192)])
def test_a_large_gpu_has_enough_to_do(n: int, out: int, width: int, dtype: torch.dtype) -> None:
    """There are programs for half its multiprocessors, unless that would cut the depth into crumbs."""
    tiles = gpu.tiles_for(n, out, width, dtype)
    programs = gpu._programs(tiles, n, out) * tiles.parts
    assert programs >= 66 or tiles.parts >= width // (8 * tiles.depth)
    assert tiles.parts == 1 or width // tiles.parts >= 4 * tiles.depth
    assert tiles.columns * tiles.depth * tiles.stages <= 128 * 128 * 3


@pytest.mark.parametrize("sign", [1, -1])
def test_extremes_stay_in_int32(sign: int) -> None:
    width = naive.MAX_WIDTH
    a, b = torch.full((1, width), 127, dtype=torch.int8), torch.full((1, width), 127 * sign, dtype=torch.int8)
    expected = torch.tensor([[127 * 127 * sign * width]], dtype=torch.int32)
    for parts in (1, 4):
        got = gpu._multiply(
            a.to(DEVICE), b.to(DEVICE).t(), torch.ones(1, device=DEVICE), gpu.Tiles(16, 16, 4096, parts, 4, 2)
        )
        same_bits(got, expected.float())


@pytest.mark.parametrize(("n", "width", "out"), SHAPES)
@pytest.mark.parametrize("unsigned", [True, False])
def test_linear_w8a8(n: int, width: int, out: int, unsigned: bool) -> None:
    """Rows with signs and without; scales are applied as the definition does."""
    rows = Rows(levels(n, width), torch.rand(n, 1))
    rows = Rows(rows.unsigned(), rows.tops) if unsigned else rows
    check(gpu.linear_w8a8, naive.linear_w8a8, rows, levels(out, width), torch.rand(out) * 1e-4)


def test_a_row_does_not_see_its_neighbours() -> None:
    """A row's product is the same in a batch of one and of seventy, which have other tiles."""
    rows, weight, scales = Rows(levels(70, 160), torch.rand(70, 1)), levels(40, 160), torch.rand(40)
    together = gpu.linear_w8a8(*on_device((rows, weight, scales)))
    for i in (0, 33, 69):
        alone = gpu.linear_w8a8(*on_device((Rows(*(x[i : i + 1] for x in rows)), weight, scales)))
        same_bits(alone, tuple(x[i : i + 1].cpu() for x in together))


# Not bfloat16: Triton's interpreter gets its products wrong without a word.
DTYPES = [(torch.float32, 1e-4), (torch.float16, 5e-3)]


@pytest.mark.parametrize(("n", "width", "out"), [(1, 64, 33), (5, 96, 40), (70, 160, 50), (0, 32, 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_linear_w8a16(n: int, width: int, out: int, dtype: torch.dtype, tolerance: float) -> None:
    x, scales = torch.randn(n, width).to(dtype), torch.rand(out) / 127 / width**0.5
    weight = levels(out, width)
    expected = x.double() @ (weight * scales.double()[:, None]).t()
    for given in (x, strided(x)):
        got = gpu.linear_w8a16(given.to(DEVICE), *on_device((weight, scales)))
        assert got.dtype == dtype
        torch.testing.assert_close(got.cpu().double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("n", "width", "out"), [(1, 64, 33), (5, 96, 40), (70, 160, 50), (0, 32, 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_linear_w4a16(n: int, width: int, out: int, dtype: torch.dtype, tolerance: float) -> None:
    """Every group of 32 columns has its own scale and minimum."""
    x = torch.randn(n, width).to(dtype)
    weight = torch.randint(0, 256, (out, width // 2), dtype=torch.uint8)
    scales = torch.rand(out, width // 32, 2) / width**0.5
    scales[..., 1] *= -8
    for kept in (scales, scales.half()):
        expected = naive.linear_w4a16(x.double(), weight, kept)
        got = gpu.linear_w4a16(strided(x).to(DEVICE), *on_device((weight, kept)))
        assert got.dtype == dtype
        torch.testing.assert_close(got.cpu().double(), expected, rtol=tolerance, atol=tolerance)


def test_parts_of_a_float_product_add_up() -> None:
    """A deep product of one row is cut into parts, which are summed in order: the same bits at every run."""
    x, weight, scales = torch.randn(1, 2048), levels(8, 2048), torch.rand(8) / 127 / 45
    assert gpu.tiles_for(1, 8, 2048, torch.float32).parts > 1
    first, second = (gpu.linear_w8a16(*on_device((x, weight, scales))).cpu() for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(
        first.double(), x.double() @ (weight * scales.double()[:, None]).t(), rtol=1e-4, atol=1e-4
    )


def test_quantised_rows_meet_quantised_weights() -> None:
    """From floats to floats, the product is close to that of the floats."""
    x, weight = torch.randn(4, 256), torch.randn(48, 256) / 16
    w, scales = quant.quantise(weight)
    rows, w, scales = on_device((quant.naive.quantise(x), Rows(w, scales).signed(), scales.squeeze(-1) / 127**2))
    got = gpu.linear_w8a8(rows, w, scales).floats().cpu()
    torch.testing.assert_close(got, x @ weight.t(), rtol=0.1, atol=0.1)
