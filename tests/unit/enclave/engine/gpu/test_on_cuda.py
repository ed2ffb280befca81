"""What only CUDA itself shows: streams, page-locked memory, graphs, memory that is left over. Skipped elsewhere."""

from collections.abc import Iterator

import pytest
import torch
from confide_enclave.engine.cuda import STAGING_BYTES, CudaLane, _Memory, choose_gpu, left_over
from confide_enclave.engine.gpu_runner import GpuRunner

from tests.unit.enclave.engine.gpu.test_runner import CONTEXT, build, make, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU is at hand")


@pytest.fixture
def cuda() -> Iterator[CudaLane]:
    before = torch.cuda.current_stream()
    yield CudaLane(choose_gpu("cuda"))
    torch.cuda.set_stream(before)


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16", "w4a16", "none"])
def test_graphs_give_what_is_launched(cuda: CudaLane, scheme: str) -> None:
    """The same states bit for bit, when the same kernels run over the same memory; in any mode."""
    runner = build(GpuRunner, scheme, "qwen3", cuda)
    runner.record(1, CONTEXT)
    (graph,) = runner._graphs
    run(runner, [make(2, [1])], 3)
    tokens, positions, rows = graph._inputs
    replayed = [each.clone() for each in (graph._states.residual, *(graph._states.added or ()))]
    with torch.inference_mode():
        states = runner._model.states(tokens, positions, rows, graph._spans.placed, runner.pool)
    for one, other in zip(replayed, (states.residual, *(states.added or ())), strict=True):
        assert torch.equal(one, other)


def test_a_long_run_of_replays_equals_launches(cuda: CudaLane) -> None:
    """Hundreds of steps with nothing between them but what an engine does: no copy overtakes a replay."""
    launched, replayed = build(GpuRunner, "w8a8", "llama", cuda), build(GpuRunner, "w8a8", "llama", cuda)
    replayed.record(4, 2 * CONTEXT)

    def answers(runner: GpuRunner) -> list:
        return run(runner, [make(1, range(6)), make(2, range(6, 12)), make(3, range(12, 18))], 90)

    assert answers(launched) == answers(replayed) == answers(replayed)


def test_what_is_sent_may_change_at_once(cuda: CudaLane) -> None:
    """Whatever the caller does with its memory next, what arrives is what was sent; more than fits arrives too."""
    numbers, arrived = torch.arange(1000), []
    for count in range(3000):
        numbers.fill_(count)
        arrived.append(cuda.send(numbers))
    large = torch.ones(STAGING_BYTES + 8, dtype=torch.uint8)
    assert cuda.send(large).sum().item() == len(large)
    assert torch.stack(arrived)[:, [0, -1]].tolist() == [[count, count] for count in range(3000)]
    assert cuda.fetch(cuda.send(torch.arange(9)))() == list(range(9))


def test_nothing_is_left_over(cuda: CudaLane) -> None:
    """What tensors held is zero where they were let go of; what they still hold is as it was."""
    kept = torch.full((1 << 20,), 7, dtype=torch.uint8, device=cuda.device)
    gone = torch.full((1 << 20,), 9, dtype=torch.uint8, device=cuda.device)
    address, size = gone.data_ptr(), gone.numel()
    del gone
    cuda.erase()
    segments = torch.cuda.memory_snapshot()
    places = list(left_over(segments, cuda.device.index, cuda._stream.cuda_stream))
    assert any(start <= address and address + size <= start + length for start, length in places)

    assert not torch.as_tensor(_Memory(address, size), device=cuda.device).any()
    assert bool((kept == 7).all())
    assert not cuda._staging.any()


def test_pages_are_zero_before_anything_that_comes_after(cuda: CudaLane) -> None:
    """Wiped in stream order, without waiting: the next step over the same pages finds nothing of the last."""
    runner = build(GpuRunner, "w8a8", "llama", cuda)
    runner.record(2, CONTEXT)
    (first,) = run(runner, [make(2, [3, 4])], 5)
    for _ in range(50):
        runner.wipe([3, 4])
        (again,) = run(runner, [make(2, [3, 4])], 5)
        assert again == first
    runner.wipe([3, 4])
    assert not runner.pool.data.any()


def test_memory_that_runs_out_leaves_a_gpu_that_works(cuda: CudaLane) -> None:
    """torch says so before anything is launched; the lane goes on."""
    _, total = torch.cuda.mem_get_info(cuda.device)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2 * total, dtype=torch.uint8, device=cuda.device)
    assert cuda.survives()
    runner = build(GpuRunner, "w8a8", "llama", cuda)
    assert len(run(runner, [make(2, [1])], 2)[0]) == 2
