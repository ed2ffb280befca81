"""Check every kernel on the GPU at hand, time it and the engine beside their peers, write a dated table to build/.

`python -m tests.bench_gpu [check] [kernels] [engine]`
"""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench_gpu.cases import Case
    from tests.bench_gpu.timing import Ceilings

ROOT = Path(__file__).resolve().parents[2]
HEAD = ("kernel", "shape", "time", "rate", "of the ceiling", "peers", "right", "graph")
FOLDERS = ("kernels", "enclave", "protocol")
NEEDS = ("torch", "triton", "numba", "numpy", "pytest", "cryptography")
PARTS = ("check", "kernels", "engine")
ENGINE_NEEDS = ("structlog", "llguidance", "tokenizers", "jinja2", "pydantic")


def main(arguments: Sequence[str] = ()) -> int:
    """Do all, or the parts that are named."""
    if unknown := set(arguments) - set(PARTS):
        print(
            f"bench-gpu: no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr
        )
        return 2
    sys.path[:0] = [str(ROOT / each) for each in FOLDERS]
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        return unmeasured(f"not installed: {', '.join(missing)}")
    import torch

    if not torch.cuda.is_available():
        return unmeasured("no CUDA GPU is at hand")
    if torch.cuda.get_device_capability() < (8, 0):
        return unmeasured(f"{torch.cuda.get_device_name()} is too old: compute capability 8.0 or newer is needed")
    from tests.bench_gpu.timing import ceilings

    parts, began, most = arguments or PARTS, datetime.now(UTC), ceilings()
    lines = facts()
    if "check" in parts:
        lines += ["", self_test(), check()]
    # What there is by now is written even if the rest never ends.
    write(lines, began)
    if "kernels" in parts:
        lines += ["", *table(measure(most))]
        write(lines, began)
    if "engine" in parts:
        lines += ["", *measure_engine(most.copy)]
    write(lines, began)
    print("\n".join(lines))
    return 1 if any(word in line for line in lines for word in ("FAILED", "BROKE", "| NO |")) else 0


def unmeasured(why: str) -> int:
    line = f"not yet measured: {why}"
    write([line], datetime.now(UTC))
    print(line)
    return 0


def write(lines: list[str], began: datetime) -> None:
    text = "\n".join([f"# Kernels and engine on a GPU, {began:%Y-%m-%d %H:%M} UTC", "", *lines, ""])
    path = ROOT / "build" / f"bench-gpu-{began:%Y%m%d-%H%M}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(f"written: {path}", file=sys.stderr)


def self_test() -> str:
    """Run what an enclave runs before it serves."""
    import torch
    from confide_kernels import selftest

    selftest.check(torch.device("cuda"))  # compiles
    began = time.perf_counter()
    faults = selftest.check(torch.device("cuda"))
    seconds = time.perf_counter() - began
    return f"self-test in {seconds:.1f} s: {'FAILED: ' + '; '.join(faults) if faults else 'passed'}"


def measure_engine(copy_bytes_s: float) -> list[str]:
    """Return the table of the engine end to end, or why there is none."""
    import torch

    if missing := [name for name in ENGINE_NEEDS if importlib.util.find_spec(name) is None]:
        return [f"end to end: not yet measured: not installed: {', '.join(missing)}"]
    from tests.bench_gpu import engine, shapes

    torch.cuda.empty_cache()
    print("bench-gpu: the engine end to end", file=sys.stderr, flush=True)
    return engine.report(shapes.QWEN3_06B, engine.REAL, "cuda", copy_bytes_s)


def check() -> str:
    """Run the kernels' tests on the GPU: there they compare its bits with those of the definitions on the CPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(ROOT)]
    folder = "tests/unit/kernels"
    done = subprocess.run(
        [*command, "--import-mode=importlib", "-p", "no:cacheprovider", "--confcutdir", folder, f"{folder}/triton"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *(ROOT / each for each in FOLDERS)]))},
        capture_output=True,
        text=True,
    )
    last = (done.stdout.strip().splitlines() or [done.stderr[-500:]])[-1]
    if done.returncode:
        print(done.stdout[-8000:], done.stderr[-2000:], file=sys.stderr)
    return f"tests of the kernels on this GPU: {'passed' if done.returncode == 0 else 'FAILED'}: {last}"


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


def measure(most: "Ceilings") -> list[tuple[str, ...]]:
    """Time every case. One that breaks says so in its row, and the others go on."""
    import torch

    rows = [
        ("copy of 1 GiB", "", "", f"{most.copy / 1e9:.0f} GB/s", "", "", "", ""),
        ("fill of 1 GiB", "", "", f"{most.fill / 1e9:.0f} GB/s", "", "", "", ""),
        ("cuBLAS bf16", "8192^3", "", f"{most.bf16 / 1e12:.0f} T/s", "", "", "", ""),
        ("torch._int_mm", "8192^3", "", f"{most.int8 / 1e12:.0f} T/s", "", "", "", ""),
    ]
    for group in groups():
        try:
            rows += [_measure_case(case, most) for case in group("cuda", False)]
        except Exception as problem:  # noqa: BLE001 - a case that cannot be made is printed; other groups go on
            rows.append(_broke(group.__name__, problem))
        torch.cuda.empty_cache()
    return rows


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


def table(rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (HEAD, ("---",) * len(HEAD), *rows)]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
