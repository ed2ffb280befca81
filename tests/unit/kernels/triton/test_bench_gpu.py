"""The bench of GPUs: its cases are right in their small size, and without a GPU it says so."""

import sys

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
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert bench.main() == 0
    assert "not yet measured: no CUDA GPU is at hand" in capsys.readouterr().out
    [written] = (tmp_path / "build").iterdir()
    assert "not yet measured" in written.read_text()


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["kernel"]) == 2
    assert "there are check, kernels, engine" in capsys.readouterr().err


def test_a_kernel_that_breaks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a row of its own; nothing is claimed of it, and the bench fails."""
    from tests.bench_gpu import timing
    from tests.bench_gpu.cases import Case

    def fail() -> bool:
        raise RuntimeError("out of\nresources")

    most = timing.Ceilings(1e12, 1e12, 1e15, 1e15)
    row = bench._measure_case(Case("attend", "1", fail, 1e6, "copy", {}, fail), most)
    assert row[:2] == ("attend BROKE", "RuntimeError: out of resources")
    monkeypatch.setattr(timing, "time_run", lambda run: timing.Timed(2.0, True))
    row = bench._measure_case(Case("wipe", "1", fail, 1e6, "copy", {"eager": fail}, lambda: False), most)
    assert row == ("wipe", "1", "2.0 us", "500 GB/s", "50% of copy", "eager 1.00x", "NO", "yes")


@pytest.mark.parametrize(("scheme", "on"), [("w8a8", "cpu"), ("none", "cpu"), ("w8a8", "lane")])
def test_the_engine_is_measured(scheme: str, on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny one, on the CPU and by way of a GPU's runner: every answer is as long as asked, or ends by itself."""
    for name in bench.ENGINE_NEEDS:
        pytest.importorskip(name)
    from tests.bench_gpu import engine, shapes

    monkeypatch.setattr(engine, "_STEPS", 4)
    if on == "lane" and DEVICE == "cpu":
        from confide_enclave.engine import gpu
        from confide_kernels import place

        from tests.fakes.lane import HostLane

        monkeypatch.setattr(gpu, "open_lane", lambda _: HostLane())
        monkeypatch.setattr(gpu.selftest, "check", lambda _: [])
        monkeypatch.setattr(gpu, "rows_of_step", lambda _: 2)
        monkeypatch.setattr(place, "INTERPRETED", True)
    work = engine.Work.of(2, 2, 4)
    result = engine.measure(shapes.TINY, scheme, work, "cuda" if on == "lane" else "cpu")
    assert 2 <= result.made <= work.tokens
    assert result.seconds > 0
    assert engine._row(result, 100.0, 1e9).startswith(f"| ours, {scheme} | ")
    arrays = shapes.make(shapes.TINY, scheme).arrays
    if scheme == "w8a8":
        per_token = 2 * 2 * 2 * (16 + 4)  # layers, keys and values, heads; levels, and what they stand for
        weights = sum(array.nbytes for name, array in arrays.items() if not name.startswith("embedding"))
    else:
        width = 2 if result.step.bytes < sum(array.nbytes for array in arrays.values()) else 4
        per_token = 2 * 2 * 2 * 16 * width
        weights = sum(array.nbytes for array in arrays.values()) * width // 4
    contexts = sum(read + made // 2 + 3 for read, made in work.requests)
    assert result.step.bytes == weights + contexts * per_token


def test_what_the_engine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ENGINE_NEEDS", ("no_such_package",))
    assert bench.measure_engine(1e9) == ["end to end: not yet measured: not installed: no_such_package"]


def test_a_peer_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is an engine that breaks; neither hides the other."""
    for name in bench.ENGINE_NEEDS:
        pytest.importorskip(name)
    from tests.bench_gpu import engine, shapes

    def fail(*_: object) -> None:
        raise RuntimeError("too little memory")

    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(engine, "measure", fail)
    lines = engine.report(shapes.TINY, engine.Work.of(2, 2, 4), "cpu", 1e9, ("w8a8",))
    assert "| ours, w8a8 | BROKE: RuntimeError: too little memory |" in lines[-2]
    assert "not measured: " in lines[-1]
