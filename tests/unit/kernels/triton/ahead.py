"""Compile every kernel for a GPU that need not be here, and print what would show that it rounds otherwise.

`python -m tests.unit.kernels.triton.ahead [80|86|89|90]`: the kernels are launched as ever, but each launch is
compiled instead. Run by a test in a process of its own, for Triton either interprets or compiles.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
import triton
from confide_kernels.attention import triton_float
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from tests.unit.kernels.triton import launches

# What contracts, or may be contracted later, approximates or flushes.
INEXACT = re.compile(
    r"\b(?:fma\.rn\.f\d+|mad\.f\d+|(?:mul|add|sub)\.f\d+|\w+\.approx\S*|div\.full\S*|\w+(?:\.\w+)*\.ftz\S*|ex2\S*|lg2\S*)"
)
TYPES = {
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}


class Compiled(NamedTuple):
    """A launch's kernel: its name, the type of its first argument, what it was given, and what was made of it."""

    name: str
    dtype: str
    given: dict[str, Any]
    made: Any


def launched(capability: int, launches: Iterable[Callable[[], None]]) -> Iterator[Compiled]:
    """Yield what each launch compiles to for GPUs of a compute capability, such as 90."""
    caught: list[Compiled] = []

    def run(function: JITFunction, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        name = f"{function.__module__.removeprefix('confide_kernels.')}.{function.__name__}"
        dtype = TYPES[arguments[0].dtype].removeprefix("*")
        given = dict(zip([param.name for param in function.params], arguments, strict=False)) | options
        caught.append(Compiled(name, dtype, given, compiled(function, capability, given)))

    kept = JITFunction.run, triton_float.capability_of
    JITFunction.run, triton_float.capability_of = run, lambda _: capability // 10
    try:
        for launch in launches:
            launch()
            yield from caught
            caught.clear()
    finally:
        JITFunction.run, triton_float.capability_of = kept


def signature(function: JITFunction, given: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any], dict]:
    """Return the types of a launch's arguments, those that are constants, and what is a multiple of sixteen."""
    types, constants, attributes = {}, {}, {}
    for place, param in enumerate(function.params):
        value = given[param.name]
        if param.is_constexpr or (isinstance(value, int) and value == 1 and not param.do_not_specialize):
            types[param.name], constants[param.name] = "constexpr", value
            continue
        types[param.name] = TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        if isinstance(value, torch.Tensor) or (value % 16 == 0 and not param.do_not_specialize):
            attributes[(place,)] = [["tt.divisibility", 16]]
    return types, constants, attributes


def compiled(function: JITFunction, capability: int, given: dict[str, Any]) -> Any:
    names = {param.name for param in function.params}
    own = {name: value for name, value in given.items() if name not in names}
    types, constants, attributes = signature(function, given)
    source = ASTSource(function, types, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=own)


def main(capability: int) -> int:
    wrong, caught, seen = 0, 0, set()
    for name, _, given, made in launched(capability, launches.COMMON):
        exact = given.get("enable_fp_fusion") is False
        found = sorted(set(INEXACT.findall(made.asm["ptx"])))
        wrong += exact and bool(found)
        caught += not exact and bool(found)
        seen.add(name)
        print(f"{name}: {'exact' if exact else 'float'}; {', '.join(found)}", flush=True)
    print(f"{len(seen)} kernels for sm_{capability}: {wrong} exact ones round otherwise, {caught} others do")
    # That none of the others did would mean that nothing is found.
    return 1 if wrong or not caught else 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 90))
