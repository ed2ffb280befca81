"""The bench of kernels: its cases are right in their small size, and without a GPU it says so."""

import pytest
import torch

from tests.bench_gpu import __main__ as bench
from tests.unit.kernels.triton.shared import DEVICE, require_triton

require_triton()


@pytest.mark.parametrize("group", range(7))
def test_every_case_checks_itself(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case runs, and its sample agrees with the definition."""
    monkeypatch.setattr("tests.bench_gpu.cases.compiled", lambda run: run)
    count = 0
    for case in bench.groups()[group](DEVICE, True):
        case.run()
        assert case.check(), case.name
        assert case.work > 0
        assert case.of in ("copy", "fill", "bf16", "int8")
        count += 1
    assert count


def test_a_wrong_result_is_seen() -> None:
    from tests.bench_gpu.cases import same

    x = torch.ones(3)
    assert not same(x, x + 1e-6)
    assert same(x, x + 1e-6, 1e-3)
    assert not same((x, x), (x, x * 2), 1e-3)


def test_without_a_gpu_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    assert bench.main() == 0
    assert "not yet measured: no CUDA GPU is at hand" in capsys.readouterr().out
    [written] = (tmp_path / "build").iterdir()
    assert "not yet measured" in written.read_text()
