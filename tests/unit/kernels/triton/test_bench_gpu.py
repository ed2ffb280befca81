"""The bench of GPUs: its cases are right in their small size, and without a GPU it says so."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from tests.bench_gpu import __main__ as bench
from tests.bench_gpu import checks, compiled
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


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where tables are written to."""
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("BENCH_GPU_OUT", raising=False)
    return tmp_path


def test_without_a_gpu_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench, "has_gpu", lambda: False)
    monkeypatch.setenv("BENCH_GPU_OUT", str(root / "mine"))
    assert bench.main() == 0
    assert "not yet measured: no CUDA GPU is at hand" in capsys.readouterr().out
    for folder in ("build", "mine"):
        [written] = (root / folder).iterdir()
        assert "not yet measured" in written.read_text()
    # One that torch does not see, or packages that are missing, are a failure where there is a GPU.
    monkeypatch.setattr(bench, "has_gpu", lambda: True)
    assert bench.main() == 1
    monkeypatch.setattr(bench, "NEEDS", ("torch", "no_such_package"))
    assert bench.main() == 1
    assert "not yet measured: not installed: no_such_package" in capsys.readouterr().out


@pytest.mark.parametrize(("says", "code"), [("all fit", 0), ("1 FAILED", 1)])
def test_what_is_compiled_needs_no_gpu(
    monkeypatch: pytest.MonkeyPatch, root: Path, capsys: pytest.CaptureFixture[str], says: str, code: int
) -> None:
    """Its table is written like the others, and a kernel that does not fit is a failure."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench, "missing", lambda names: [])
    monkeypatch.setattr(compiled, "table", lambda: iter([f"sm_90: {says}"]))
    assert bench.main(["compiled"]) == code
    assert f"sm_90: {says}" in capsys.readouterr().out


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["kernel"]) == 2
    assert "there are check, kernels, engine" in capsys.readouterr().err


def test_parts_are_made_one_by_one(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Each line is in the table before the next is made; a part that breaks says so, and the next goes on."""
    written: list[str] = []

    def table() -> str:
        [path] = (root / "build").iterdir()
        return path.read_text()

    def kernels() -> Iterator[str]:
        yield "| one | yes |"
        written.append(table())
        raise RuntimeError("an illegal access")

    def engine(engines: Sequence[str]) -> Iterator[str]:
        yield f"engines: {', '.join(engines)}"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(bench, "facts", lambda: ["a GPU"])
    monkeypatch.setattr(bench, "measure", kernels)
    monkeypatch.setattr(bench, "measure_engine", engine)
    assert bench.main(["kernels", "engine", "w8a8", "transformers"]) == 1
    assert written[0].endswith("a GPU\n\n| one | yes |\n")
    expected = "kernels BROKE: RuntimeError: an illegal access\n\nengines: transformers, w8a8\n"
    assert table().endswith(expected)
    for path in (root / "build").iterdir():
        path.unlink()
    assert bench.main(["w8a16"]) == 0
    assert table().endswith("a GPU\n\nengines: w8a16\n")


def test_tests_that_hang_are_ended(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import time\ndef test_a(): pass\ndef test_b(): time.sleep(60)\n")
    said = checks.run_tests("toys", str(tmp_path), tmp_path / "logs", 4.0, str(tmp_path))
    assert said.startswith("tests of the toys on this GPU: FAILED: not done after 4 s")
    (tmp_path / "test_it.py").write_text("def test_a(): pass\n")
    said = checks.run_tests("toys", str(tmp_path), tmp_path / "logs", 60.0, str(tmp_path))
    assert said.startswith("tests of the toys on this GPU: passed: 1 passed")
    assert "test_a PASSED" in (tmp_path / "logs" / "bench-gpu-toys.log").read_text()


def test_engine_tests_that_cannot_run_are_skipped_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "_TESTS_NEED", ("torch", "no_such_package"))
    [said] = checks.check_engine(tmp_path, 1.0)
    assert said == "tests of the engine on this GPU: skipped, not installed: no_such_package"


def test_what_waits_is_never_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture that fails would leave torch's allocator unable to give memory back."""
    from tests.bench_gpu import timing

    modes, made = ["default"], []
    for name in ("current_stream", "Stream", "set_stream", "synchronize", "stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append("graph") or MagicMock())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: MagicMock(__exit__=lambda *_: False))
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    torch.cuda.stream.return_value.__exit__ = lambda *_: False

    def waits() -> None:
        if modes[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    assert timing.captured(waits) is None
    assert (modes, made) == (["default", "error", "default"], [])
    torch.cuda.set_stream.assert_called_once_with(torch.cuda.current_stream.return_value)
    assert timing.captured(lambda: None) is not None
    assert (modes[-1], made) == ("default", ["graph"])


def test_memory_that_cannot_be_given_back_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.bench_gpu import timing

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", MagicMock(side_effect=RuntimeError("captures underway")))
    timing.clear()
    assert "captures underway" in capsys.readouterr().err


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
    """And fails: who asks for it is at a GPU."""
    monkeypatch.setattr(bench, "ENGINE_NEEDS", ("no_such_package",))
    assert list(bench.measure_engine()) == ["end to end: FAILED: not installed: no_such_package"]


def test_a_peer_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is an engine that breaks; neither hides the other."""
    for name in bench.ENGINE_NEEDS:
        pytest.importorskip(name)
    from tests.bench_gpu import engine, shapes

    def fail(*_: object) -> None:
        raise RuntimeError("too little memory")

    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(engine, "measure", fail)
    lines = list(engine.report(shapes.TINY, engine.Work.of(2, 2, 4), "cpu", 1e9, ("w8a8", "transformers")))
    assert "not measured: " in lines[-2]
    assert "| ours, w8a8 | BROKE: RuntimeError: too little memory |" in lines[-1]
    assert "transformers'" not in "".join(
        engine.report(shapes.TINY, engine.Work.of(2, 2, 4), "cpu", 1e9, ("w8a8",))
    )
