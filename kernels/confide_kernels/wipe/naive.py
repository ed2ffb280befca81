"""The definition in plain torch."""

import torch
from torch import Tensor


def wipe(data: Tensor, tops: Tensor, pages: Tensor, page_rows: int) -> None:
    rows = (pages.long()[:, None] * page_rows + torch.arange(page_rows, device=pages.device)).flatten()
    data.index_fill_(2, rows, 0)
    tops.index_fill_(3, rows, 0)
