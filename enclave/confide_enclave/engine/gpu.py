"""Makes the runner of a GPU: what it needs is counted first, and its kernels are tried before anybody is served."""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import structlog
import torch
from confide_kernels import selftest
from confide_kernels.attention.tiles import MANY_QUERIES
from confide_protocol.errors import ConfigError

from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.card import EngineLimits, choose_dtype
from confide_enclave.engine.config import DecoderConfig, read_config
from confide_enclave.engine.cuda import CudaLane, choose_gpu
from confide_enclave.engine.gpu_runner import MAX_GRAPH_CONTEXT, MAX_GRAPH_ROWS, GpuRunner
from confide_enclave.engine.lane import Lane
from confide_enclave.engine.model import Decoder
from confide_enclave.engine.package import Model
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.speculate import MAX_ROWS
from confide_enclave.engine.store import Array
from confide_enclave.engine.weights import load_weights
from confide_enclave.errors import DeviceUnavailable

log = structlog.get_logger(__name__)

# Tokens that a draw's 18 bits tell apart.
MAX_VOCABULARY: Final = 1 << 18
# Wider heads leave attention too little shared memory.
MAX_HEAD_DIM: Final = 256
# Code, cuBLAS, and what is lost between allocations.
_SPARE_BYTES: Final = 512 << 20
_GIB: Final = 1 << 30
# Kernels at fault that are named.
_TOLD: Final = 3


class Need(NamedTuple):
    """Bytes of a GPU."""

    weights: int
    cache: int
    steps: int


def open_lane(name: str) -> Lane:
    """Return a stream of the GPU that the settings name. Raises: ConfigError."""
    return CudaLane(choose_gpu(name))


def build_runner(model: Model, limits: EngineLimits, pages: int) -> GpuRunner:
    """Load the weights, make the cache, try the kernels, record graphs; takes 1.5 to 3 minutes at first.

    Raises: ConfigError when it does not fit, DeviceUnavailable when a kernel computes wrongly.
    """
    config = read_config(model.metadata)
    if config.vocabulary > MAX_VOCABULARY:
        raise ConfigError("engine", "device", f'draws from {MAX_VOCABULARY} tokens at most; set device = "cpu"')
    if config.head_dim > MAX_HEAD_DIM:
        raise ConfigError("engine", "device", f'takes heads of {MAX_HEAD_DIM} at most; set device = "cpu"')
    lane = open_lane(limits.device)
    need, (free, total) = count_need(config, model.arrays, limits, pages), lane.memory()
    if sum(need) > free:
        raise too_little(need, free, total)
    if faults := selftest.check(lane.device):
        more = f" and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        told = "; ".join(faults[:_TOLD]) + more
        raise DeviceUnavailable(f"the GPU computes wrongly, nothing is served: {told}")
    try:
        weights = load_weights(model, getattr(torch, choose_dtype(limits)), lane.device, take=True)
        runner = GpuRunner(Decoder(weights, limits.context_tokens), KvPool.of(weights, pages), lane)
        runner.warm_up(min(limits.prefill_chunk_tokens, limits.context_tokens - 1), rows_of_step(limits))
        with selftest.BUILDING:  # other engines of this process may be starting too
            runner.record(rows_of_step(limits), limits.context_tokens)
    except torch.OutOfMemoryError:
        raise too_little(need, free, total) from None
    log.info("gpu_ready", device=str(lane.device), **need._asdict())
    return runner


def rows_of_step(limits: EngineLimits) -> int:
    """Return the most rows of a step that reads no prompt."""
    return limits.max_sequences if limits.speculate == "off" else max(limits.max_sequences, MAX_ROWS)


def count_need(config: DecoderConfig, arrays: Mapping[str, Array], limits: EngineLimits, pages: int) -> Need:
    """Count what weights and cache take, and at most a step that is launched and one that is replayed."""
    exact, dtype = limits.mode == "exact", getattr(torch, choose_dtype(limits))
    weights = 8 * limits.context_tokens * config.head_dim  # the table of turns
    for name, array in arrays.items():
        is_matrix = name.endswith(".rows") and array.dtype.kind == "f"
        weights += array.size * dtype.itemsize if is_matrix else array.nbytes
    per_row = config.head_dim * (1 if exact else dtype.itemsize) + 4
    cache = pages * PAGE_TOKENS * 2 * config.layers * config.kv_heads * per_row
    drawn, context = rows_of_step(limits), limits.context_tokens
    states = 16 * (config.width + config.hidden + (config.heads + config.kv_heads) * config.head_dim)

    def compute(rows: int, scores: int) -> int:
        return rows * (states + 8 * config.heads * (config.head_dim + 3)) + 4 * config.heads * scores

    rows, replayed = limits.prefill_chunk_tokens + drawn, min(drawn, MAX_GRAPH_ROWS)
    # Scores are kept of spans with few queries alone, of which a sequence has one.
    kept = min(rows, max(limits.max_sequences, MAX_ROWS) * (MANY_QUERIES - 1))
    steps = compute(rows, kept * context) + compute(replayed, min(replayed * context, MAX_GRAPH_CONTEXT))
    logits = 3 * 4 * config.vocabulary * drawn
    return Need(weights, cache, steps + logits + _SPARE_BYTES)


def too_little(need: Need, free: int, total: int) -> ConfigError:
    """Say that a GPU has less to spare, and what to lower."""
    weights, cache, steps, needed, spare, all_of_it = (
        math.ceil(10 * each / _GIB) / 10 for each in (*need, sum(need), free, total)
    )
    return ConfigError(
        "engine",
        "cache_tokens",
        f"asks for more than the GPU has: {needed} GiB, of which the weights {weights}, the cache {cache}, a step"
        f" {steps}, and {spare} of {all_of_it} are free; lower cache_tokens, max_sequences, context_tokens or"
        " prefill_chunk_tokens, or choose a smaller model",
    )
