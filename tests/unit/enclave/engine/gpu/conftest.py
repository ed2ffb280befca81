"""The engine's path on GPUs: on one where there is one, else on the CPU with Triton's interpreter in its place."""

import pytest
import torch
from confide_enclave.engine import gpu, gpu_runner
from confide_enclave.engine.cuda import CudaLane, choose_gpu
from confide_enclave.engine.lane import Lane
from confide_kernels import place

from tests.fakes.interpreter import interpret_without_gpu
from tests.fakes.lane import HostLane

interpret_without_gpu()


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Lane:
    """What the engine opens. On the CPU facades call Triton's versions from then on, so definitions come first."""
    pytest.importorskip("triton", reason="Triton is not installed")
    opened: Lane
    if torch.cuda.is_available():
        opened = CudaLane(choose_gpu("cuda"))
    else:
        opened = HostLane()
        monkeypatch.setattr(place, "INTERPRETED", True)
    monkeypatch.setattr(gpu, "open_lane", lambda name: opened)
    # The interpreter takes a second for what a GPU does in one thousandth of it.
    monkeypatch.setattr(gpu, "rows_of_step", lambda limits: 4)
    monkeypatch.setattr(gpu_runner, "warm_up_counts", lambda most: [1])
    monkeypatch.setattr(gpu.selftest, "check", lambda device: [])
    return opened
