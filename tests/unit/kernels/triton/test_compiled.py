"""What kernels are compiled to fits GPUs that are not here, and spills no registers; what does not is told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit.kernels.triton.shared import require_triton

require_triton()
pytest.importorskip("cryptography", reason="cryptography is not installed")
from confide_kernels.attention.triton_float import plan_for  # noqa: E402

from tests.bench_gpu import compiled  # noqa: E402

ROOT = Path(__file__).resolve().parents[4]


# The least shared memory, and the other instructions: 8.0 and 8.9 are between them.
@pytest.mark.parametrize("capability", [86, 90])
def test_every_kernel_fits(capability: int) -> None:
    """In a process of its own, for Triton either interprets or compiles."""
    if compiled.disassembler() is None:
        pytest.skip("this Triton has no cuobjdump, which is there on Linux alone")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", f"{_PRINT}table([{capability}], common=True), sep='\\n')"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "FAILED" not in done.stdout
    says = done.stdout.splitlines()[-1]
    assert re.fullmatch(
        rf"sm_{capability}: \d\d kernels, \d+ of \d+ bytes .*: all fit, none spills more than 16", says
    )
    assert len(done.stdout.splitlines()) > 40


_PRINT = "from tests.bench_gpu.compiled import table; print(*"


def test_what_does_not_fit_or_spills_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each capability by its own limit."""
    large, spilling = compiled.Figures(100 << 10, 80, 0), compiled.Figures(8, 255, 20)
    monkeypatch.setattr(compiled, "_measured", lambda *_: iter([("large", large), ("spilling", spilling)]))
    monkeypatch.setattr(compiled, "disassembler", lambda: Path("cuobjdump"))
    lines = list(compiled.table([86, 90]))
    assert lines[2] == "| large | 102400 B, 80 r FAILED: does not fit | 102400 B, 80 r |"
    assert lines[3].count("8 B, 255 r, 20 B FAILED: spills") == 2
    assert lines[4] == "sm_86: 2 kernels, 102400 of 101376 bytes of shared memory at most: 2 FAILED"
    assert lines[5] == "sm_90: 2 kernels, 102400 of 232448 bytes of shared memory at most: 1 FAILED"
    monkeypatch.setattr(compiled, "disassembler", lambda: None)
    assert "FAILED" in next(compiled.table())


def test_rows_of_a_float_program_divide_a_tile() -> None:
    """Whatever the tile, the heads, the numbers and the GPU; exact tiles do not ask which GPU it is."""
    for tile in (16, 32, 64, 128):
        for wide in (32, 64, 128, 256):
            for dtype in (torch.float16, torch.bfloat16, torch.float32):
                for capability in (8, 9, 10, 12):
                    plan = plan_for(tile, wide, dtype, capability)
                    assert tile % plan.size == 0
                    assert min(plan.size, plan.block) >= 16
