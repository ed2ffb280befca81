"""Pages are wiped to the last byte."""

import pytest
import torch
from confide_kernels import wipe

from tests.unit.kernels.triton.shared import DEVICE, check, on_device, require_triton

require_triton()
from confide_kernels.wipe import triton as gpu_wipe  # noqa: E402

PAGES, PAGE_ROWS = 5, 3


@pytest.mark.parametrize(("kv_heads", "width"), [(1, 4), (3, 20), (2, 1000)])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.float32])
@pytest.mark.parametrize("pages", [[], [4], [3, 0, 1]])
def test_wipe(kv_heads: int, width: int, dtype: torch.dtype, pages: list[int]) -> None:
    """In every layer, keys and values and their tops; not a byte of another page."""
    data = torch.randint(1, 100, (2, 2, PAGES * PAGE_ROWS, kv_heads, width)).to(dtype)
    tops = torch.rand(2, 2, kv_heads, PAGES * PAGE_ROWS) + 1
    check(gpu_wipe.wipe, wipe.wipe, data, tops, torch.tensor(pages, dtype=torch.int64), PAGE_ROWS)
    device_data, device_tops = on_device((data, tops))
    gpu_wipe.wipe(device_data, device_tops, torch.tensor(pages, dtype=torch.int64, device=DEVICE), PAGE_ROWS)
    rows = (device_data.cpu() == 0).all(-1).all(-1)
    assert rows.view(4, PAGES, PAGE_ROWS).all(-1).sum(1).tolist() == [len(pages)] * 4


def test_pages_that_are_not_there_are_left_out() -> None:
    data, tops = on_device((torch.ones(1, 2, 6, 1, 4, dtype=torch.int8), torch.ones(1, 2, 1, 6)))
    gpu_wipe.wipe(data, tops, torch.tensor([-1, 2, 1], device=DEVICE), PAGE_ROWS)
    assert data[:, :, :3].all()
    assert not data[:, :, 3:].any()


def test_a_cache_of_odd_pages_is_refused() -> None:
    with pytest.raises(ValueError, match="whole pages"):
        gpu_wipe.wipe(*on_device((torch.ones(1, 2, 7, 1, 4), torch.ones(1, 2, 1, 7))), torch.tensor([0]), PAGE_ROWS)
    with pytest.raises(ValueError, match="contiguous"):
        gpu_wipe.wipe(
            torch.ones(2, 2, 6, 1, 4).transpose(0, 1), torch.ones(2, 2, 1, 6), torch.tensor([0]), PAGE_ROWS
        )
