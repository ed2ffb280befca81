"""Times on a GPU: the median of many runs, each with cold caches, replayed from a graph where that can be."""

import gc
import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch

RUNS = 25
# More than any GPU's L2 cache holds.
_FLUSH_BYTES = 256 << 20

Run = Callable[[], object]


class Ceilings(NamedTuple):
    """What this GPU does at best, measured: bytes and operations a second."""

    copy: float
    fill: float
    bf16: float
    int8: float


class Timed(NamedTuple):
    median_us: float
    graph: bool


def time_run(run: Run, runs: int = RUNS) -> Timed:
    """Return the median time of a run, between two events; the caches are flushed before each."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    replay = captured(run)
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for before, after in events:
        flush.zero_()
        before.record()
        (replay or run)()
        after.record()
    torch.cuda.synchronize()
    return Timed(
        statistics.median(before.elapsed_time(after) for before, after in events) * 1e3, replay is not None
    )


def captured(run: Run) -> Run | None:
    """Return what replays a run from a graph, or None where it waits for the GPU or copies from pageable memory.

    That is found out before anything is captured: a capture that fails leaves torch's allocator unable to give
    memory back (pytorch/pytorch#180395).
    """
    before, stream, mode = torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.get_sync_debug_mode()
    stream.wait_stream(before)
    try:
        with torch.cuda.stream(stream):
            torch.cuda.set_sync_debug_mode("error")
            try:
                run()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        before.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        # Where a capture itself failed, torch left its stream in place.
        torch.cuda.set_stream(before)
        torch.cuda.synchronize()
        return None
    return graph.replay


def clear() -> None:
    """Give memory back. Where torch cannot, what comes next does with what is left."""
    gc.collect()
    if torch.cuda.is_available():
        try:
            torch.cuda.empty_cache()
        except RuntimeError as problem:
            print(f"bench-gpu: memory was not given back: {str(problem)[:200]}", file=sys.stderr, flush=True)


def ceilings() -> Ceilings:
    """Measure a copy and a fill of 1 GiB, and products of 8192 x 8192 matrices of random numbers."""
    size = 8192
    source, to = torch.randint(0, 255, (2, 1 << 30), dtype=torch.uint8, device="cuda")
    copy = 2 * source.numel() / time_run(lambda: to.copy_(source)).median_us * 1e6
    fill = to.numel() / time_run(to.zero_).median_us * 1e6
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    bf16 = 2 * size**3 / time_run(lambda: a @ b).median_us * 1e6
    a8, b8 = (torch.randint(-127, 128, (size, size), device="cuda", dtype=torch.int8) for _ in range(2))
    int8 = 2 * size**3 / time_run(lambda: torch._int_mm(a8, b8.t())).median_us * 1e6
    return Ceilings(copy, fill, bf16, int8)
