"""What steps launch while requests wait has been compiled before: that takes a GPU seconds, kernel by kernel."""

from collections.abc import Iterator

import pytest
import torch
from confide_enclave.engine import Sampling, gpu_runner
from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.gpu_runner import GpuRunner, warm_up_counts
from confide_enclave.engine.lane import Lane
from confide_enclave.engine.model import Decoder
from confide_enclave.engine.scheduler import Step
from confide_enclave.engine.sequence import Sequence
from confide_enclave.engine.tokens import TextStream
from confide_enclave.engine.weights import load_weights

from tests.bench_gpu import shapes
from tests.fakes.lane import HostLane

CONTEXT, CHUNK, DRAWN = 1024, 256, 16


def kind(value: object) -> object:
    """What a kernel is compiled anew for, as Triton tells numbers and addresses apart."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.data_ptr() % 16 == 0 or not value.numel()
    return (value == 1, value % 16 == 0) if isinstance(value, int) else value


@pytest.fixture
def compiled(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> set[tuple[object, ...]]:
    """Keys of all that is launched from now on; nothing runs."""
    if not isinstance(lane, HostLane):
        pytest.skip("on a GPU kernels run")
    from triton.runtime.interpreter import InterpretedFunction

    keys: set[tuple[object, ...]] = set()

    def launch(kernel: InterpretedFunction, *args: object, grid: object, warmup: bool, **named: object) -> None:
        types = kernel.fn.__annotations__
        given = dict(zip(kernel.arg_names, args, strict=False)) | named
        same = kernel.kwargs.get("do_not_specialize") or ()
        shifted = kernel.kwargs.get("do_not_specialize_on_alignment") or ()
        parts: list[object] = [kernel.fn.__module__, kernel.fn.__name__]
        for name, value in sorted(given.items()):
            if "constexpr" in str(types.get(name, "constexpr")):
                parts.append((name, str(value)))
            elif name not in same:
                parts.append((name, value.dtype) if name in shifted else (name, kind(value)))
        keys.add(tuple(parts))

    monkeypatch.setattr(InterpretedFunction, "run", launch)
    monkeypatch.setattr(gpu_runner, "warm_up_counts", warm_up_counts)
    return keys


def steps() -> Iterator[Step]:
    def one(count: int, **asked: float) -> tuple[Sequence, int]:
        settings = Sampling(**{"temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "seed": 0} | asked)
        return Sequence([0] * count, settings, 9, TextStream(()), print, pages=list(range(20))), count

    for count in (1, 2, 3, 15, 16):
        for asked in ({}, {"top_p": 0.9}, {"top_k": 9}, {"top_k": 9, "top_p": 0.9}):
            yield Step(tuple(one(1, **asked) for _ in range(count)))
    for count in (18, 48, 63, 64, 65, 100, 128, 129, 160, 192, 193, 240, 255, 256):
        for others in (0, 1, 8, 16):
            yield Step((*(one(1) for _ in range(others)), one(count)))


@pytest.mark.parametrize("scheme", ["w8a8", "w8a16"])
def test_nothing_is_compiled_while_requests_wait(
    lane: Lane, compiled: set[tuple[object, ...]], scheme: str
) -> None:
    """Whatever the number of prompts' tokens, of rows that are drawn from, and what they ask for."""
    shape = shapes.QWEN3_06B._replace(layers=1, hidden=2048, vocabulary=3000)
    weights = load_weights(shapes.make(shape, scheme), torch.float32)
    runner = GpuRunner(Decoder(weights, CONTEXT), KvPool.of(weights, 32), lane)
    runner.warm_up(CHUNK, DRAWN)
    runner.record(DRAWN, CONTEXT)
    before = set(compiled)
    assert len(before) > 20
    for step in steps():
        list(runner.run(step))
    assert compiled == before
