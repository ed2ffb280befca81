"""Where tensors are worked on, and how they get there. Importing this does not import Triton."""

import os
from typing import Final

import torch
from torch import Tensor

# Triton's interpreter stands in for a GPU, for tests: every facade then calls Triton's version, on the CPU.
INTERPRETED: Final = os.environ.get("TRITON_INTERPRET") == "1"


def on_gpu(x: Tensor) -> bool:
    """Return whether a facade is to call Triton's version."""
    return x.is_cuda or INTERPRETED


def send(x: Tensor, device: torch.device, out: Tensor | None = None) -> Tensor:
    """Return `x` of the CPU on a device, in stream order; nothing waits. With `out`, copy into that.

    The copy is from page-locked memory, which torch hands to nobody else before it is done.
    """
    if x.is_cpu and device.type == "cuda":
        x = x.pin_memory()
    return x.to(device, non_blocking=True) if out is None else out.copy_(x, non_blocking=True)
