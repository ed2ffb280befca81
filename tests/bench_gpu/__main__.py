"""Check every kernel and the engine on the GPU at hand, time them beside their peers, write a table to build/.

Each line is written as it is made. Parts; the first three where none is named:
  check         an enclave's self-test, then the tests of kernels and engine, on the GPU
  kernels       every kernel timed, beside torch's
  engine        256 requests answered end to end: by transformers, w8a8, w8a16 and none, or by those that are named
  check-engine  the tests of the engine alone
  compiled      shared memory, registers and spills of every kernel, for sm_80, 86, 89 and 90: needs no GPU

A machine that ends a call after ten minutes takes a part at a time: make bench-gpu BENCH_GPU_ARGS="engine w8a8".
Kernels compile the first time that they are used: a cold start takes 1.5 to 3 minutes.

Bring torch built for CUDA, triton, numba, numpy and pytest; for the engine also structlog, llguidance, tokenizers,
jinja2, pydantic and cryptography, and transformers as its peer. Its tests want anyio too, and sealing cryptography:
without them these are skipped by name. With pytest-xdist tests of kernels compile side by side.
BENCH_GPU_OUT names a folder that gets the table and the tests' logs too.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench_gpu.checks import ENGINE_NEEDS, FOLDERS, SEALS, check, check_engine, missing
from tests.bench_gpu.report import ROOT, Report

if TYPE_CHECKING:
    from tests.bench_gpu.cases import Case
    from tests.bench_gpu.timing import Ceilings

HEAD = ("kernel", "shape", "time", "rate", "of the ceiling", "peers", "right", "graph")
NEEDS = ("torch", "triton", "numba", "numpy", "pytest")
ALL = ("check", "kernels", "engine")
COMPILED = "compiled"
PARTS = (*ALL, "check-engine", COMPILED)
ENGINES = ("transformers", "w8a8", "w8a16", "w4a16", "none")


def main(arguments: Sequence[str] = ()) -> int:
    """Do all, or the parts that are named. With a GPU at hand, what is missing or breaks is a failure."""
    parser = argparse.ArgumentParser(
        "bench-gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; {', '.join(ENGINES)}")
    parser.add_argument("--timeout", type=float, default=540, help="seconds for a check (540)")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.parts) - {*PARTS, *ENGINES}):
        print(f"bench-gpu: no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    engines = [each for each in ENGINES if each in asked.parts]
    parts = [each for each in PARTS if each in asked.parts] or (["engine"] if engines else ALL)
    report = Report(ROOT)
    sys.path[:0] = [str(ROOT / each) for each in FOLDERS]
    if lacking := missing(NEEDS):
        return unmeasured(report, f"not installed: {', '.join(lacking)}")
    import torch

    if parts == [COMPILED]:
        add_part(report, COMPILED, compiled)
        return 0 if report.is_good else 1
    if not torch.cuda.is_available():
        return unmeasured(report, "no CUDA GPU is at hand")
    if torch.cuda.get_device_capability() < (8, 0):
        name = torch.cuda.get_device_name()
        return unmeasured(report, f"{name} is too old: compute capability 8.0 or newer is needed")
    report.add(*facts())
    makers: dict[str, Callable[[], Iterable[str]]] = {
        "check": lambda: check(report.folders[-1], asked.timeout),
        "check-engine": lambda: check_engine(report.folders[-1], asked.timeout),
        COMPILED: compiled,
        "kernels": measure,
        "engine": lambda: measure_engine(engines),
    }
    for part in parts:
        report.add("")
        add_part(report, part, makers[part])
    return 0 if report.is_good else 1


def add_part(report: Report, part: str, make: Callable[[], Iterable[str]]) -> None:
    """Add line by line what a part says. If it breaks, the others go on."""
    try:
        for line in make():
            report.add(line)
    except Exception as problem:  # noqa: BLE001 - said in the table, which makes the bench fail
        report.add(f"{part} BROKE: {type(problem).__name__}: {str(problem)[:500]}")


def unmeasured(report: Report, why: str) -> int:
    report.add(f"not yet measured: {why}")
    return 1 if has_gpu() else 0


def has_gpu() -> bool:
    """Say whether the driver shows a GPU, whatever torch sees."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def measure_engine(engines: Sequence[str] = ()) -> Iterator[str]:
    """Make the table of the engine end to end, or say why there is none."""
    if lacking := missing(ENGINE_NEEDS):
        yield f"end to end: FAILED: not installed: {', '.join(lacking)}"
        return
    from tests.bench_gpu import engine, shapes, timing

    timing.clear()
    print("bench-gpu: the engine end to end", file=sys.stderr, flush=True)
    copy_bytes_s = timing.ceilings().copy
    timing.clear()
    yield from engine.report(shapes.QWEN3_06B, engine.REAL, "cuda", copy_bytes_s, engines or engine.ENGINES)


def compiled() -> Iterator[str]:
    """Make the table of what kernels are compiled to."""
    if lacking := missing([SEALS]):
        yield f"compiled: FAILED: not installed: {', '.join(lacking)}"
        return
    from tests.bench_gpu import compiled

    yield from compiled.table()


def facts() -> list[str]:
    import torch
    import triton

    free, total = torch.cuda.mem_get_info()
    return [
        f"{torch.cuda.get_device_name()}, {total / 2**30:.0f} GiB ({free / 2**30:.0f} free); "
        f"torch {torch.__version__}, triton {triton.__version__}, CUDA {torch.version.cuda}"
    ]


def groups() -> list[Callable[[str, bool], Iterator]]:
    from tests.bench_gpu import cases, cases_attention

    return [
        cases.elementwise,
        cases.rotation,
        cases.products,
        cases_attention.attention,
        cases_attention.sampling,
        cases.pages,
        cases_attention.sealing,
    ]


def measure() -> Iterator[str]:
    """Time every case. One that breaks says so in its row, and the others go on."""
    from tests.bench_gpu import timing

    most = timing.ceilings()
    yield from table(
        [
            HEAD,
            ("---",) * len(HEAD),
            ("copy of 1 GiB", "", "", f"{most.copy / 1e9:.0f} GB/s", "", "", "", ""),
            ("fill of 1 GiB", "", "", f"{most.fill / 1e9:.0f} GB/s", "", "", "", ""),
            ("cuBLAS bf16", "8192^3", "", f"{most.bf16 / 1e12:.0f} T/s", "", "", "", ""),
            ("torch._int_mm", "8192^3", "", f"{most.int8 / 1e12:.0f} T/s", "", "", "", ""),
        ]
    )
    lacking = missing([SEALS])
    for group in groups():
        if lacking and group.__name__ == "sealing":
            yield from table([("ChaCha20", f"skipped, not installed: {', '.join(lacking)}", *[""] * 6)])
            continue
        try:
            for case in group("cuda", False):
                yield from table([_measure_case(case, most)])
        except Exception as problem:  # noqa: BLE001 - a case that cannot be made is printed; other groups go on
            yield from table([_broke(group.__name__, problem)])
        timing.clear()


def _measure_case(case: "Case", most: "Ceilings") -> tuple[str, ...]:
    from tests.bench_gpu.timing import time_run

    print(f"bench-gpu: {case.name}", file=sys.stderr, flush=True)
    try:
        right = case.check()
        own = time_run(case.run)
    except Exception as problem:  # noqa: BLE001 - whatever a kernel raises is printed; others go on
        return _broke(case.name, problem)
    rate = case.work / own.median_us * 1e6
    unit = f"{rate / 1e9:.0f} GB/s" if case.of in ("copy", "fill") else f"{rate / 1e12:.0f} T/s"
    peers = "; ".join(f"{name} {peer_ratio(peer, own.median_us)}" for name, peer in case.peers.items())
    share = f"{rate / getattr(most, case.of):.0%} of {case.of}"
    says, graph = "yes" if right else "NO", "yes" if own.graph else "no"
    return case.name, case.shape, f"{own.median_us:.1f} us", unit, share, peers, says, graph


def _broke(name: str, problem: Exception) -> tuple[str, ...]:
    return f"{name} BROKE", f"{type(problem).__name__}: {problem}"[:120].replace("\n", " "), *[""] * 6


def peer_ratio(peer: Callable[[], object], own_us: float) -> str:
    """Say how many times as long a peer takes: above 1, ours is faster."""
    from tests.bench_gpu.timing import time_run

    try:
        return f"{time_run(peer).median_us / own_us:.2f}x"
    except Exception as problem:  # noqa: BLE001 (a peer's failure is its own, and is printed)
        return f"broke ({type(problem).__name__})"


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
