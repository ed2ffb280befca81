"""Compile kernels for the processor at hand, once.

What is made is code, and is trusted as the source is: it is kept beside it, or, where that cannot be written, in a
private folder for as long as the process lives, which begins as a copy of what lies beside the source.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
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


def cache_folder(package: Path) -> Path:
    """Return where kernels of exactly these sources and compilers are kept: numba asks for one file's age alone."""
    versions = f"{numba.__version__} {metadata.version('llvmlite')} {np.__version__}"
    digest = hashlib.sha256(versions.encode())
    for source in sorted(package.glob("**/*.py")):
        digest.update(source.read_bytes())
    kept = package / "__pycache__" / f"kernels-{digest.hexdigest()[:16]}"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=kept).close()
    except OSError:
        private = Path(tempfile.mkdtemp(prefix="confide-kernels-"))
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        return Path(shutil.copytree(kept, private / "kernels")) if kept.is_dir() else private
    return kept


setattr(numba.config, "CACHE_DIR", os.fspath(cache_folder(Path(__file__).parent)))  # noqa: B010 - it has no stubs


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
