"""All that needs CUDA itself: the choice of a GPU, one stream of it, memory that both sides see, graphs.

Memory that tensors have let go of stays with torch, for tensors to come, until `release`. `erase` overwrites what
this stream's have left there; cuBLAS keeps a workspace of its own, with partial sums of fast mode. What lies on the
GPU when the process ends is the driver's to clear.
"""

import gc
import importlib.util
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from confide_kernels.selftest import BUILDING
from confide_protocol.errors import ConfigError
from torch import Tensor

from confide_enclave.engine.lane import Lane, T

# Tensor cores for bfloat16 and int8, and the copies that Triton overlaps with them.
LEAST_CAPABILITY: Final = (8, 0)
# What a step sends to the GPU goes through here; what is larger goes another way, which waits.
STAGING_BYTES: Final = 16 << 20
# Ids that come back at once: more than a step draws.
FETCHED: Final = 4096
_ALIGNMENT: Final = 64


def choose_gpu(name: str) -> torch.device:
    """Return the GPU that the settings name, if all that it needs is there. Raises: ConfigError."""
    number = int(name.partition(":")[2] or 0)

    def refuse(why: str) -> ConfigError:
        return ConfigError("engine", "device", f'{why}; or set device = "cpu"')

    if torch.version.cuda is None:
        raise refuse("needs a torch that is built with CUDA; install one")
    if importlib.util.find_spec("triton") is None:
        raise refuse("needs Triton; install it: pip install 'confide[gpu]'")
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        raise refuse("needs a C compiler, with which Triton makes what starts kernels; install gcc and libc6-dev")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        count = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as fault:
        if "too old" in str(fault):
            raise refuse(f"needs a newer NVIDIA driver, one for CUDA {torch.version.cuda}; install it") from None
        raise refuse("needs an NVIDIA driver and a GPU that it can use; check them with nvidia-smi") from None
    if number >= count:
        raise refuse(f"names GPU {number}, and there are {count}, counted from 0")
    found = torch.cuda.get_device_capability(number)
    if found < LEAST_CAPABILITY:
        least = "of compute capability {}.{} or newer, such as A100, H100, H200, L4".format(*LEAST_CAPABILITY)
        raise refuse("needs a GPU {}; this one has {}.{}".format(least, *found))
    return torch.device("cuda", number)


class CudaLane(Lane):
    """A stream of a GPU, from now on the one of the thread that makes this."""

    def __init__(self, device: torch.device) -> None:
        torch.cuda.set_device(device)
        self._device, self._stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        torch.cuda.set_stream(self._stream)
        self._staging = torch.zeros(STAGING_BYTES, dtype=torch.uint8, pin_memory=True)
        self._fetched = torch.zeros(FETCHED, dtype=torch.int64, pin_memory=True)
        self._staged = 0
        self._graphs = torch.cuda.graph_pool_handle()

    @property
    def device(self) -> torch.device:
        return self._device

    def memory(self) -> tuple[int, int]:
        self.release()  # what engines of before left
        return torch.cuda.mem_get_info(self._device)

    def send(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        size = x.numel() * x.element_size()
        if size > STAGING_BYTES:
            return x.to(self._device) if out is None else out.copy_(x)
        if self._staged + size > STAGING_BYTES:
            self._stream.synchronize()
            self._staged = 0
        staged = self._staging[self._staged : self._staged + size].view(x.dtype).view(x.shape).copy_(x)
        self._staged += math.ceil(size / _ALIGNMENT) * _ALIGNMENT
        return staged.to(self._device, non_blocking=True) if out is None else out.copy_(staged, non_blocking=True)

    def fetch(self, ids: Tensor) -> Callable[[], list[int]]:
        fetched = self._fetched[: len(ids)].copy_(ids, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(self._stream)
        staged = self._staged

        def wait() -> list[int]:
            done.synchronize()
            if self._staged == staged:  # all of it has been read
                self._staged = 0
            numbers: list[int] = fetched.tolist()
            return numbers

        return wait

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        # Compiles kernels and makes tables: neither can be recorded.
        work()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other engines of this process may ask for memory meanwhile.
        with torch.cuda.graph(graph, self._graphs, self._stream, "thread_local"):
            result = work()
        return graph.replay, result

    def erase(self) -> None:
        self._stream.synchronize()
        self._staging.zero_()
        self._fetched.zero_()
        self._staged = 0
        segments = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        for address, size in left_over(segments, self._device.index, self._stream.cuda_stream):
            torch.as_tensor(_Memory(address, size), device=self._device).zero_()

    def release(self) -> None:
        gc.collect()
        # While any thread records a graph, torch asserts that none does; after that it serves nobody.
        with BUILDING:
            torch.cuda.empty_cache()

    def survives(self) -> bool:
        try:
            self._stream.synchronize()
        except RuntimeError:
            return False
        self._staged = 0
        return True


def left_over(segments: Sequence[Mapping[str, Any]], device: int, stream: int) -> Iterator[tuple[int, int]]:
    """Yield addresses and sizes of what torch keeps for tensors to come of one stream, which no other thread uses.

    segments: as `torch.cuda.memory_snapshot` gives them. Of graphs it is what they compute in, which is in use only
    while they run.
    """
    for segment in segments:
        if (segment["device"], segment["stream"]) == (device, stream):
            for block in segment["blocks"]:
                if block["state"] == "inactive":
                    yield block["address"], block["size"]


@dataclass(frozen=True)
class _Memory:
    """Bytes of a GPU, for torch to wrap: numba's CUDA array interface, version 2."""

    address: int
    size: int

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"shape": (self.size,), "typestr": "|u1", "data": (self.address, False), "version": 2}
