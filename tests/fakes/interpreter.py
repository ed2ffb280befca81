"""Triton's interpreter, where no GPU is at hand."""

import os
from contextlib import suppress

import torch


def interpret_without_gpu() -> None:
    """Have Triton interpret, in this process alone; called before a module with kernels is imported."""
    if torch.cuda.is_available():
        return
    # Read when Triton's own functions are made. Facades and other tests' processes must not find it.
    os.environ["TRITON_INTERPRET"] = "1"
    with suppress(ImportError):
        import triton

        triton.knobs.propagate_env = False
        triton.knobs.runtime.interpret = True
    del os.environ["TRITON_INTERPRET"]
