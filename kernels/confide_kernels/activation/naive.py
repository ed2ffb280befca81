"""The definition in plain torch."""

from torch import Tensor
from torch.nn.functional import silu


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return `silu(gate) * up`, [n, width], of `gate_up` [n, 2 * width] = gate beside up, in its dtype."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate).mul_(up)
