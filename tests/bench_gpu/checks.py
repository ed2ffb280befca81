"""Whether kernels and engine compute rightly on the GPU at hand: an enclave's self-test, then their tests."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench_gpu.report import ROOT

FOLDERS = ("kernels", "enclave", "protocol", "attestation")
SEALS = "cryptography"
ENGINE_NEEDS = ("structlog", "llguidance", "tokenizers", "jinja2", "pydantic", SEALS)
_TESTS_NEED = (*ENGINE_NEEDS, "anyio")
# Kernels take seconds to compile, on one core each.
_WORKERS = 8


def missing(names: Sequence[str]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def check(logs: Path, timeout_s: float) -> Iterator[str]:
    """Say of each check how it went; tests end when the time for all is over. Logs hold every test's line."""
    end = time.monotonic() + timeout_s
    yield self_test()
    yield run_tests("kernels", "tests/unit/kernels/triton", logs, end - time.monotonic(), "tests/unit/kernels")
    yield from check_engine(logs, end - time.monotonic())


def check_engine(logs: Path, timeout_s: float) -> Iterator[str]:
    if lacking := missing(_TESTS_NEED):
        yield f"tests of the engine on this GPU: skipped, not installed: {', '.join(lacking)}"
    else:
        yield run_tests("engine", "tests/unit/enclave/engine/gpu", logs, timeout_s, "tests")


def self_test() -> str:
    """Run what an enclave runs before it serves."""
    import torch
    from confide_kernels import selftest

    skipped = ["seal.seal"] if missing([SEALS]) else []
    first = time.perf_counter()
    selftest.check(torch.device("cuda"), skipped)  # compiles
    began = time.perf_counter()
    faults = selftest.check(torch.device("cuda"), skipped)
    told = f"{time.perf_counter() - began:.1f} s, {began - first:.0f} s the first time"
    told += f" (without {', '.join(skipped)}: {SEALS} is not installed)" if skipped else ""
    return f"self-test in {told}: {'FAILED: ' + '; '.join(faults) if faults else 'passed'}"


def run_tests(name: str, folder: str, logs: Path, timeout_s: float, top: str) -> str:
    """Run tests that compare this GPU with the definitions on the CPU."""
    log = logs / f"bench-gpu-{name}.log"
    command = [sys.executable, "-m", "pytest", "-v", "-rs", "-c", os.devnull, "--rootdir", str(ROOT)]
    command += ["--import-mode=importlib", "-p", "no:cacheprovider", "--confcutdir", top, folder]
    path = os.pathsep.join(map(str, [ROOT, *(ROOT / each for each in FOLDERS)]))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    # The engine's fill the GPU's memory: one after the other.
    if name == "kernels" and not missing(["xdist"]):
        command += ["-n", str(_WORKERS)]
        env["OMP_NUM_THREADS"] = "2"
    print(f"bench-gpu: tests of the {name}: {log}", file=sys.stderr, flush=True)
    logs.mkdir(parents=True, exist_ok=True)
    code: int | None = None
    with (
        log.open("w") as out,
        subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        ) as tests,
    ):
        try:
            code = tests.wait(max(timeout_s, 0))
        except subprocess.TimeoutExpired:
            os.killpg(tests.pid, signal.SIGKILL)  # with those that it started
    lines = log.read_text(errors="replace").strip().splitlines() or ["nothing was printed"]
    if code:
        print("\n".join(lines)[-8000:], file=sys.stderr)
    says = "passed" if code == 0 else "FAILED" if code else f"FAILED: not done after {max(timeout_s, 0):.0f} s"
    return f"tests of the {name} on this GPU: {says}: {lines[-1].strip('= ')}"
