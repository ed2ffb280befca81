"""Every kernel compiles for a GPU, also where there is none; nothing in an exact one rounds otherwise."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.kernels.triton.shared import require_triton

require_triton()
pytest.importorskip("cryptography", reason="cryptography is not installed")
ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.skipif(
    platform.system() != "Linux", reason="Triton's assembler for NVIDIA GPUs is there on Linux alone"
)
def test_kernels_compile_for_a_gpu_that_is_not_here() -> None:
    """No multiplication is fused with an addition, nothing is approximate, no small number becomes zero."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.kernels.triton.ahead", "90"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "25 kernels for sm_90: 0 exact ones round otherwise" in done.stdout
