"""Compile kernels for the processor at hand. What is made is kept beside the source, or in the user's cache."""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

I8 = npt.NDArray[np.int8]
U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
F = TypeVar("F", bound=Callable[..., Any])

# A float32 plus this, less this, is rounded to a whole number, ties to even, if it is under 2^22.
ROUND: Final = np.float32(3 << 22)


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[npt.NDArray[Any], Tensor]:
    """Return memory that nobody wrote yet, as an array and as a tensor; torch's own takes three times as long."""
    array = np.empty(shape, dtype)
    return array, torch.from_numpy(array)


def kernel(*arguments: str) -> Callable[[F], F]:
    """Compile a function of arguments of these types, and no others: nothing is compiled amid a request.

    No fast mathematics: floats are computed in the order written and none of their operations are fused, so the
    bits are those of IEEE 754 on any processor.
    """
    signature = f"void({', '.join(arguments)})"
    return cast("Callable[[F], F]", numba.njit(signature, cache=True, nogil=True, error_model="numpy"))


def part(function: F) -> F:
    """Let kernels call a function; it is compiled into them."""
    return cast("F", numba.njit(function, cache=True, nogil=True, error_model="numpy"))
