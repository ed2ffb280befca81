"""Compile every kernel for a GPU that need not be here, and print what would show that it rounds otherwise.

`python -m tests.unit.kernels.triton.ahead [80|90]`: the kernels are launched as ever, but each launch is compiled
instead. Run by a test in a process of its own, for Triton either interprets or compiles.
"""

import re
import sys
from typing import Any

import torch
import triton
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


def signature(function: JITFunction, given: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any], dict]:
    """Return the types of a launch's arguments, those that are constants, and what is a multiple of sixteen."""
    types, constants, attributes = {}, {}, {}
    for place, param in enumerate(function.params):
        value = given[param.name]
        if param.is_constexpr or (isinstance(value, int) and value == 1):
            types[param.name], constants[param.name] = "constexpr", value
            continue
        types[param.name] = TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        if isinstance(value, torch.Tensor) or value % 16 == 0:
            attributes[(place,)] = [["tt.divisibility", 16]]
    return types, constants, attributes


def compiled(function: JITFunction, capability: int, arguments: tuple, options: dict[str, Any]) -> Any:
    given = dict(zip([param.name for param in function.params], arguments, strict=False))
    names = {param.name for param in function.params}
    given.update({name: value for name, value in options.items() if name in names})
    own = {name: value for name, value in options.items() if name not in names}
    types, constants, attributes = signature(function, given)
    source = ASTSource(function, types, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=own)


def main(capability: int) -> int:
    wrong, caught, seen = 0, 0, set()

    def run(function: JITFunction, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        nonlocal wrong, caught
        made = compiled(function, capability, arguments, options)
        exact = options.get("enable_fp_fusion") is False
        found = sorted(set(INEXACT.findall(made.asm["ptx"])))
        wrong += exact and bool(found)
        caught += not exact and bool(found)
        name = f"{function.__module__.removeprefix('confide_kernels.')}.{function.__name__}"
        seen.add(name)
        print(f"{name}: {'exact' if exact else 'float'}; {', '.join(found)}", flush=True)

    JITFunction.run = run
    for launch in launches.ALL:
        launch()
    print(f"{len(seen)} kernels for sm_{capability}: {wrong} exact ones round otherwise, {caught} others do")
    # That none of the others did would mean that nothing is found.
    return 1 if wrong or not caught else 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 90))
