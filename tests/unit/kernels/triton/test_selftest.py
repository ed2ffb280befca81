"""The self-test finds a kernel that is wrong, by name, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from confide_kernels import place, selftest
from confide_kernels.gemm import Product
from confide_kernels.quant import Rows

from tests.unit.kernels.triton.shared import DEVICE, require_triton

require_triton()
ROOT = Path(__file__).resolve().parents[4]
WHERE = torch.device(DEVICE)


def test_every_kernel_is_right() -> None:
    """On the GPU, or as the interpreter runs it where TRITON_INTERPRET is in the environment."""
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if DEVICE == "cpu" else {})
    command = [sys.executable, "-W", "ignore", "-m", "confide_kernels.selftest"]
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "kernels"), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.endswith(": 16 operations, 0 at fault\n")
    assert ("interpreted" in done.stdout) == (DEVICE == "cpu")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run the self-test of some operations on a GPU, or in the interpreter."""
    monkeypatch.setattr(place, "INTERPRETED", DEVICE == "cpu")

    def run(*names: str) -> list[str]:
        monkeypatch.setattr(selftest, "_CASES", {name: selftest._CASES[name] for name in names})
        return selftest.check(WHERE)

    return run


def test_a_wrong_number_is_found(only, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in a whole matrix, by the operation's name, beside one that is right."""
    from confide_kernels.gemm import triton

    right = triton.linear_w8a8

    def wrong(*arguments: torch.Tensor) -> Product:
        product = right(*arguments)
        product.columns[0, 7] = product.columns[0, 7].nextafter(torch.tensor(1e9))
        return product

    monkeypatch.setattr(triton, "linear_w8a8", wrong)
    assert only("gemm.linear_w8a8", "quant.quantise") == [
        "gemm.linear_w8a8: in its comparison 1, 1 of 40 numbers differ from the definition"
    ]


def test_a_row_of_another_dtype_is_found(only, monkeypatch: pytest.MonkeyPatch) -> None:
    from confide_kernels.quant import triton

    right = triton.quantise
    monkeypatch.setattr(triton, "quantise", lambda x: Rows(right(x).levels, right(x).tops.double()))
    [fault] = only("quant.quantise")
    assert fault.startswith("quant.quantise: in its comparison 1, torch.float64")


def test_a_float_beyond_its_bound_is_found(only, monkeypatch: pytest.MonkeyPatch) -> None:
    from confide_kernels.activation import triton

    right = triton.silu_mul
    monkeypatch.setattr(triton, "silu_mul", lambda x: right(x) * 1.01)
    [fault] = only("activation.silu_mul")
    assert fault.startswith("activation.silu_mul: in its comparison 1, ")


def test_a_kernel_that_raises_is_found(only, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that the GPU has too little shared memory for; the others are tested all the same."""
    from confide_kernels.wipe import triton

    def fail(*_: object) -> None:
        raise RuntimeError("out of resources")

    monkeypatch.setattr(triton, "wipe", fail)
    assert only("wipe.wipe", "quant.quantise") == ["wipe.wipe: RuntimeError: out of resources"]


def test_memory_that_nobody_wrote_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds what no result has while the self-test runs, and afterwards is as it was."""

    def forgets(_: selftest.Move) -> Iterator[selftest.Pair]:
        for dtype in (torch.float32, torch.int8, torch.int32):
            expected = torch.zeros(3000, dtype=dtype)
            yield selftest.Pair(expected.new_empty(3000), expected)

    def one(case: Callable) -> list[str]:
        monkeypatch.setattr(selftest, "_CASES", {"x.y": case})
        return selftest.check(WHERE)

    assert one(forgets) == ["x.y: in its comparison 1, 3000 of 3000 numbers differ from the definition"]
    for skipped in (1, 2):
        assert one(lambda move, skipped=skipped: iter(list(forgets(move))[skipped:]))
    assert not torch.are_deterministic_algorithms_enabled()
