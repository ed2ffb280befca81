"""The definition in plain torch."""

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import silu

from confide_kernels.gemm.naive import Product
from confide_kernels.quant.naive import Rows, quantise


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return `silu(gate) * up`, [n, width], of `gate_up` [n, 2 * width] = gate beside up, in its dtype."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate).mul_(up)


def silu_mul_int8(gate_up: Product) -> Rows:
    """As `silu_mul`, quantised, with the gate rounded to float16 and its silu looked up. Exact."""
    gate, up = gate_up.floats().chunk(2, -1)
    bits = gate.half().view(torch.uint16).to(torch.int32)
    return quantise(silu_table(gate.device).index_select(0, bits.view(-1)).view(gate.shape).mul_(up))


@cache
def silu_table(device: torch.device) -> Tensor:
    """Return silu of every float16 by its bits, [2^16] float32. Infinities count as the greatest finite ones."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    # In pieces too small for threads to share, so that the bits never depend on how many there are.
    pieces = bits.double().clamp(-65504, 65504).view(-1, 1 << 12)
    return torch.cat([x / (1 + torch.exp(-x)) for x in pieces]).float().to(device)
