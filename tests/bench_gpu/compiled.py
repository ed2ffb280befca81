"""What is known of the kernels without a GPU: the shared memory, registers and spills that each is compiled to."""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# Bytes of shared memory that a block may have, by compute capability (CUDA C++ Programming Guide, table of them).
LIMITS = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10}
CAPABILITIES = tuple(LIMITS)
# Bytes that a thread may spill: the assembler gives so much for registers of which more warps fit.
SPARED = 16
_FIGURES = re.compile(r"REG:(\d+) STACK:(\d+)")
# What tells one kernel of a name from another; of those that it does not, the worst figures are shown.
_SHOWN = (
    "rows",
    "columns",
    "depth",
    "parts",
    "bits",
    "tile",
    "size",
    "wide",
    "block",
    "chunk",
    "weighs",
    "num_warps",
)


class Figures(NamedTuple):
    """shared: bytes a block; registers, and spilled: bytes, of a thread."""

    shared: int
    registers: int
    spilled: int


def disassembler() -> Path | None:
    """Return NVIDIA's own, which Triton brings along on Linux."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return path if path.is_file() else None


def table(capabilities: Sequence[int] = CAPABILITIES, *, common: bool = False) -> Iterator[str]:
    """Compile every kernel for each, and say of each what it takes; a fault is what does not fit, or spills.

    common: in the shapes of one model alone.
    """
    if disassembler() is None:
        yield "compiled: FAILED: this Triton has no cuobjdump; it is there on Linux alone"
        return
    found: dict[str, dict[int, Figures]] = {}
    for capability in capabilities:
        for what, figures in _measured(capability, common):
            known = found.setdefault(what, {}).get(capability, figures)
            found[what][capability] = Figures(*map(max, known, figures))
    heads = [f"sm_{each}" for each in capabilities]
    yield f"| kernel | {' | '.join(heads)} |"
    yield f"| --- |{' --- |' * len(heads)}"
    for what, by in found.items():
        yield f"| {what} | {' | '.join(_cell(by.get(each), each) for each in capabilities)} |"
    for each in capabilities:
        own = [by[each] for by in found.values() if each in by]
        most = max(figures.shared for figures in own)
        wrong = sum(bool(fault_of(figures, each)) for figures in own)
        says = f"{wrong} FAILED" if wrong else f"all fit, none spills more than {SPARED}"
        yield f"sm_{each}: {len(own)} kernels, {most} of {LIMITS[each]} bytes of shared memory at most: {says}"


def fault_of(figures: Figures, capability: int) -> str:
    if figures.shared > LIMITS[capability]:
        return "does not fit"
    return "spills" if figures.spilled > SPARED else ""


def _cell(figures: Figures | None, capability: int) -> str:
    """Shared bytes, registers, spilled bytes."""
    if figures is None:
        return ""
    fault = fault_of(figures, capability)
    says = f"{figures.shared} B, {figures.registers} r" + (f", {figures.spilled} B" if figures.spilled else "")
    return f"{says} FAILED: {fault}" if fault else says


def _measured(capability: int, common: bool) -> Iterator[tuple[str, Figures]]:
    from tests.unit.kernels.triton import launches
    from tests.unit.kernels.triton.ahead import launched

    for name, dtype, given, made in launched(capability, launches.COMMON if common else launches.ALL):
        shown = [f"{key} {given[key]}" for key in _SHOWN if isinstance(given.get(key), int)]
        yield f"{name} ({', '.join([dtype, *shown])})", _figures(made.asm["cubin"], made.metadata.shared)


def _figures(code: bytes, shared: int) -> Figures:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        command = [str(disassembler()), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = map(int, _FIGURES.findall(said)[-1])
    return Figures(shared, registers, stack)
