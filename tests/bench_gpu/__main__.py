"""Check every kernel on the GPU at hand, time it beside its peers, write a dated table to build/."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = ("kernel", "shape", "time", "rate", "of the ceiling", "peers", "right", "graph")
NEEDS = ("torch", "triton", "numba", "numpy", "pytest")


def main() -> int:
    sys.path.insert(0, str(ROOT / "kernels"))
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        return unmeasured(f"not installed: {', '.join(missing)}")
    import torch

    if not torch.cuda.is_available():
        return unmeasured("no CUDA GPU is at hand")
    if torch.cuda.get_device_capability() < (8, 0):
        return unmeasured(f"{torch.cuda.get_device_name()} is too old: compute capability 8.0 or newer is needed")
    checked = check()
    rows, bad = measure()
    write([*facts(), "", checked, "", *table(rows)])
    return 1 if bad or "FAILED" in checked else 0


def unmeasured(why: str) -> int:
    write([f"not yet measured: {why}"])
    return 0


def write(lines: list[str]) -> None:
    now = datetime.now(UTC)
    text = "\n".join([f"# Kernels on a GPU, {now:%Y-%m-%d %H:%M} UTC", "", *lines, ""])
    path = ROOT / "build" / f"bench-gpu-{now:%Y%m%d-%H%M}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(text)
    print(f"written: {path}", file=sys.stderr)


def check() -> str:
    """Run the kernels' tests on the GPU: there they compare its bits with those of the definitions on the CPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(ROOT)]
    folder = "tests/unit/kernels"
    done = subprocess.run(
        [*command, "--import-mode=importlib", "-p", "no:cacheprovider", "--confcutdir", folder, f"{folder}/triton"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
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


def measure() -> tuple[list[tuple[str, ...]], bool]:
    """Time every case. One that breaks says so in its row, and the others go on."""
    import torch

    from tests.bench_gpu.timing import ceilings, time_run

    most = ceilings()
    rows = [
        ("copy of 1 GiB", "", "", f"{most.copy / 1e9:.0f} GB/s", "", "", "", ""),
        ("fill of 1 GiB", "", "", f"{most.fill / 1e9:.0f} GB/s", "", "", "", ""),
        ("cuBLAS bf16", "8192^3", "", f"{most.bf16 / 1e12:.0f} T/s", "", "", "", ""),
        ("torch._int_mm", "8192^3", "", f"{most.int8 / 1e12:.0f} T/s", "", "", "", ""),
    ]
    bad = False
    for group in groups():
        try:
            for case in group("cuda", False):
                print(f"bench-gpu: {case.name}", file=sys.stderr, flush=True)
                right = case.check()
                own = time_run(case.run)
                rate = case.work / own.median_us * 1e6
                unit = f"{rate / 1e9:.0f} GB/s" if case.of in ("copy", "fill") else f"{rate / 1e12:.0f} T/s"
                peers = [f"{name} {peer_ratio(peer, own.median_us)}" for name, peer in case.peers.items()]
                bad |= not right
                share = f"{rate / getattr(most, case.of):.0%} of {case.of}"
                time = f"{own.median_us:.1f} us"
                says = "yes" if right else "NO"
                graph = "yes" if own.graph else "no"
                rows.append((case.name, case.shape, time, unit, share, "; ".join(peers), says, graph))
        except (RuntimeError, ImportError, ValueError, TypeError, AssertionError) as problem:
            bad = True
            rows.append((f"{group.__name__} broke", f"{type(problem).__name__}: {problem}"[:120], *[""] * 6))
        torch.cuda.empty_cache()
    return rows, bad


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
    raise SystemExit(main())
