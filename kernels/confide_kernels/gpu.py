"""What the Triton kernels share. Importing this imports Triton: facades do so when they first meet a GPU's tensor.

Exact kernels are launched with EXACT: multiplications and additions stay apart. Their float32 divisions are
`divide`, which rounds as IEEE 754 says (`/` does not, in float32); in float64 `/` and `tl.sqrt` do. Everything they
sum is integers, so neither tiles nor splits nor the order of atomic operations can be seen in the result.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Protocol, TypeVar, cast

import torch
import triton
import triton.language as tl

F = TypeVar("F", bound=Callable[..., Any])

EXACT: Final = {"enable_fp_fusion": False}
# A float32 plus this, less this, is rounded to a whole number, ties to even, if it is under 2^22.
ROUND = tl.constexpr(float(3 << 22))
# The same in float64, under 2^51.
ROUND_WIDE = tl.constexpr(float(3 << 51))
MAGNITUDE = tl.constexpr(0x7FFFFFFF)
# The bits of a float32 that is no number.
NAN_BITS = tl.constexpr(0x7FC00000)


class Kernel(Protocol):
    """What is launched: kernel[grid](...)."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]: ...


def kernel(function: Callable[..., None]) -> Kernel:
    """Make a kernel of a function."""
    return cast("Kernel", triton.jit(function))


def kernel_of_any(*numbers: str, addresses: Sequence[str] = ()) -> Callable[[Callable[..., None]], Kernel]:
    """The same, but that one kernel serves whatever the arguments named are.

    Others are compiled anew for a 1 and for multiples of 16: for what changes from step to step that would be while
    somebody waits.
    """

    def make(function: Callable[..., None]) -> Kernel:
        made = triton.jit(function, do_not_specialize=numbers, do_not_specialize_on_alignment=addresses)
        return cast("Kernel", made)

    return make


def part(function: F) -> F:
    """Let kernels call a function."""
    return cast("F", triton.jit(function))


def block_of(width: int, least: int = 1) -> int:
    """Return the power of two that covers `width`."""
    return max(least, cast("int", triton.next_power_of_2(width)))


def warps_for(block: int) -> int:
    """Return how many warps share a block of numbers."""
    return min(16, max(1, block // 512))


@cache
def capability_of(device: torch.device) -> int:
    """Return the major number of a GPU's compute capability; the interpreter passes for the oldest."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 8


@part
def divide(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Return a / b, float32, correctly rounded. a: a constant; b: any shape."""
    return tl.div_rn(tl.zeros_like(b) + a, b)


@part
def magnitude_bits(x: tl.tensor) -> tl.tensor:
    """Return the bits of |x|, which order like the magnitudes; what is not a number comes above all."""
    return x.to(tl.int32, bitcast=True) & MAGNITUDE


@part
def ordered_bits(x: tl.tensor) -> tl.tensor:
    """Return integers that order like float32 numbers. It is its own inverse, on bits."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & MAGNITUDE)
