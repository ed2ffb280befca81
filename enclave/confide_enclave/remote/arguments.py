"""Which of vLLM's arguments and variables an operator may set, and which the enclave sets itself.

The lists are closed: what is not on them may log what is asked, open a port, send rows elsewhere, load other code
or other weights. Names are taken whole, since vLLM takes any beginning of one. Does not check: what a program does
that is not vLLM, nor values beyond those named here; a policy pins the digest of all of it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

_FLAGS: Final = frozenset(
    """
    --enable-expert-parallel -ep --disable-custom-all-reduce --numa-bind --trust-remote-code
    --enable-prefix-caching --no-enable-prefix-caching --enable-chunked-prefill --no-enable-chunked-prefill
    --async-scheduling --no-async-scheduling --enforce-eager --language-model-only --disable-log-stats
    """.split()  # noqa: SIM905
)
_VALUES: Final = frozenset(
    """
    --tensor-parallel-size -tp --pipeline-parallel-size -pp --distributed-executor-backend --all2all-backend
    --moe-backend --dtype --quantization -q --kv-cache-dtype --model-impl --hf-overrides
    --gpu-memory-utilization --kv-cache-memory-bytes --num-gpu-blocks-override --block-size --cpu-offload-gb
    --max-num-seqs --max-num-batched-tokens --attention-backend --compilation-config -cc --optimization-level
    --max-cudagraph-capture-size --seed --shutdown-timeout
    """.split()  # noqa: SIM905
)
_LISTS: Final = frozenset({"--cudagraph-capture-sizes"})
_COMPILATION: Final = ("--compilation-config", "-cc")
# Those of its members that name a path or code are not here.
_COMPILATION_MEMBERS: Final = frozenset(
    """
    level mode custom_ops splitting_ops compile_sizes compile_ranges_endpoints cudagraph_mode
    cudagraph_num_of_warmups cudagraph_capture_sizes cudagraph_copy_inputs max_cudagraph_capture_size
    use_inductor_graph_partition pass_config dynamic_shapes_config fast_moe_cold_start
    """.split()  # noqa: SIM905
)
_SPANS_MACHINES: Final = (
    "would let the engine span machines: refused until the evidence of every machine stands in one statement and "
    "what passes between them is sealed; use tensor and pipeline parallel over this machine's GPUs, and more "
    "enclaves behind the gateway for more machines"
)
_GUESSES: Final = (
    "would guess tokens ahead, and the pace of a stream would tell how well; a request cannot turn it off there"
)
_LOGS: Final = "would write what is asked or answered where others read it"
_OURS: Final = "is set by the enclave"
_REFUSED: Final = {
    **dict.fromkeys(
        (
            "--nnodes", "-n", "--node-rank", "-r", "--master-addr", "--master-port", "--headless",
            "--data-parallel-address", "-dpa", "--data-parallel-backend", "-dpb", "--data-parallel-rpc-port",
            "--data-parallel-size", "-dp", "--data-parallel-external-lb", "--data-parallel-hybrid-lb",
            "--ray-workers-use-nsight", "--kv-transfer-config", "--ec-transfer-config", "--kv-events-config",
            "--weight-transfer-config",
        ),
        _SPANS_MACHINES,
    ),
    **dict.fromkeys(("--speculative-config", "-sc", "--spec-method", "--spec-model", "--spec-tokens"), _GUESSES),
    **dict.fromkeys(
        (
            "--enable-log-requests", "--enable-log-outputs", "--log-config-file", "--log-error-stack",
            "--otlp-traces-endpoint", "--middleware", "--uvicorn-log-level", "--profiler-config",
        ),
        _LOGS,
    ),
    **dict.fromkeys(
        (
            "--model", "--served-model-name", "--uds", "--host", "--port", "--api-key", "--max-model-len",
            "--max-logprobs", "--logprobs-mode", "--generation-config", "--structured-outputs-config",
        ),
        _OURS,
    ),
}  # fmt: skip
_NUMBER: Final = re.compile(r"-?[0-9]+")
_MODULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
# None of these loads code, names a file, opens a port or reaches another machine.
_VARIABLES: Final = frozenset(
    """
    CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER OMP_NUM_THREADS MKL_NUM_THREADS PYTORCH_CUDA_ALLOC_CONF
    NCCL_ALGO NCCL_PROTO NCCL_P2P_DISABLE NCCL_P2P_LEVEL NCCL_SHM_DISABLE NCCL_IB_DISABLE NCCL_NVLS_ENABLE
    NCCL_CUMEM_ENABLE NCCL_BUFFSIZE NCCL_NTHREADS NCCL_MIN_NCHANNELS NCCL_MAX_NCHANNELS
    VLLM_ATTENTION_BACKEND VLLM_CPU_KVCACHE_SPACE VLLM_CPU_OMP_THREADS_BIND VLLM_CPU_NUM_OF_RESERVED_CPU
    VLLM_CPU_SGL_KERNEL VLLM_WORKER_MULTIPROC_METHOD VLLM_PP_LAYER_PARTITION VLLM_SKIP_P2P_CHECK
    VLLM_USE_FLASHINFER_SAMPLER VLLM_USE_DEEP_GEMM VLLM_MOE_USE_DEEP_GEMM VLLM_ALLREDUCE_USE_SYMM_MEM
    VLLM_BATCH_INVARIANT VLLM_ENGINE_READY_TIMEOUT_S VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS
    """.split()  # noqa: SIM905
)
_REFUSED_VARIABLES: Final = {
    "VLLM_MODEL_REDIRECT_PATH": "would load other weights than the manifest names",
    "RAY_ADDRESS": _SPANS_MACHINES,
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": _LOGS,
    "VLLM_LOGGING_CONFIG_PATH": _LOGS,
    "VLLM_TRACE_FUNCTION": _LOGS,
    "VLLM_SERVER_DEV_MODE": "would open calls that show and change the server's inside",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "would let the weights change while it runs",
    "VLLM_PLUGINS": "would load code that the manifest does not show",
}
# No request of the server leaves the machine, and what it listens on beside its socket is loopback.
_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "TP_SOCKET_IFNAME": "lo",
}
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


def check_command(command: Sequence[str]) -> None:
    """Raises: ValueError unless it is a program or `python -m module`, and at most `serve` after it."""
    words = command[1:-1] if command[1:] and command[-1] == "serve" else command[1:]
    is_module = len(words) == 2 and words[0] == "-m" and _MODULE.fullmatch(words[1])
    if words and not is_module:
        refused = words[2] if words[0] == "-m" and len(words) > 2 else words[0]
        raise ValueError(
            f'{refused} does not belong here: it is a program or "python", "-m", "module", then at most "serve"; '
            "more belongs into `arguments`"
        )


def check_arguments(arguments: Sequence[str]) -> None:
    """Raises: ValueError naming the first argument that is refused, and why.

    A word that no argument takes is refused: vLLM would take it as the model, before the one that we name.
    """
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or _NUMBER.fullmatch(word):
            raise ValueError(f"{word} is no argument's value; an argument begins with its name")
        spelled, joined, value = word.partition("=")
        name, _, member = spelled.partition(".")
        name = name.replace("_", "-")  # as vLLM spells it
        if name not in _FLAGS | _VALUES | _LISTS:
            raise ValueError(f"{name} {_REFUSED.get(name, 'is not on the list of arguments that may be set')}")
        if name in _FLAGS:
            if joined or member:
                raise ValueError(f"{name} takes no value")
            continue
        values = [value] if joined else _take_values(words, many=name in _LISTS)
        if not all(values):
            raise ValueError(f"{name} needs a value")
        _check_value(name, member, values)


def _take_values(words: list[str], *, many: bool) -> list[str]:
    """Take an argument's values from the front of the words after it; at least one, which may be empty."""
    if not words or (words[0].startswith("-") and not _NUMBER.fullmatch(words[0])):
        return [""]
    values = [words.pop(0)]
    while many and words and _NUMBER.fullmatch(words[0]):
        values.append(words.pop(0))
    return values


def _check_value(name: str, member: str, values: Sequence[str]) -> None:
    """Raises: ValueError."""
    if name == "--distributed-executor-backend" and values[0] not in ("mp", "uni"):
        raise ValueError(f"{name} {values[0]} {_SPANS_MACHINES}")
    if name in _LISTS and not all(map(_NUMBER.fullmatch, values)):
        raise ValueError(f"{name} takes whole numbers")
    if name in _COMPILATION:
        for each in [member.partition(".")[0].removesuffix("+")] if member else _members(name, values[0]):
            if each not in _COMPILATION_MEMBERS:
                raise ValueError(f"{name}: {each} is not on the list of its members that may be set")
    elif member and name != "--hf-overrides":
        raise ValueError(f"{name} has no members")


def _members(name: str, text: str) -> list[str]:
    """Raises: ValueError."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise ValueError(f"{name} takes a JSON object")  # noqa: TRY004 - of settings
    return list(tree)


def check_environment(environment: Mapping[str, str]) -> None:
    """Raises: ValueError naming the first variable that is refused, and why."""
    for name in environment:
        if not _NAME.fullmatch(name):
            raise ValueError("a variable's name has capitals, digits and '_'")
        if name == "VLLM_API_KEY":
            raise ValueError(f"{name} {_OURS}; in a file it would be no secret")
        if name in _ENVIRONMENT:
            raise ValueError(f"{name} {_OURS}")
        if name not in _VARIABLES:
            reason = _REFUSED_VARIABLES.get(name, "is not on the list of variables that may be set")
            raise ValueError(f"{name} {reason}")


def own_arguments(weights: str, name: str, socket: str, context_tokens: int, max_logprobs: int) -> list[str]:
    """Return what the enclave adds: where, what, and that nothing is written down."""
    return [
        "--model", weights, "--served-model-name", name, "--uds", socket, "--max-model-len", str(context_tokens),
        "--max-logprobs", str(max_logprobs), "--logprobs-mode", "raw_logprobs", "--generation-config", "vllm",
        "--structured-outputs-config.backend", "guidance", "--no-enable-log-requests", "--no-enable-log-outputs",
        "--disable-uvicorn-access-log", "--disable-fastapi-docs",
    ]  # fmt: skip


def make_environment(inherited: Mapping[str, str], chosen: Mapping[str, str], api_key: str) -> dict[str, str]:
    """Return a server's environment; the key is not in its arguments, which every process may read."""
    kept = {name: inherited[name] for name in _INHERITED if name in inherited}
    return kept | dict(chosen) | _ENVIRONMENT | {"VLLM_API_KEY": api_key}
