"""Which of vLLM's arguments an operator may set, and which the enclave sets itself.

The list is closed: an argument that is not on it may log what is asked, open a port or send rows elsewhere. Names
are taken whole, since vLLM takes any beginning of one. Does not check: what a program does that is not vLLM, nor
values beyond those named here; a policy pins the digest of all of it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

_ALLOWED: Final = frozenset(
    """
    --tensor-parallel-size -tp --pipeline-parallel-size -pp --enable-expert-parallel -ep
    --distributed-executor-backend --disable-custom-all-reduce --numa-bind --all2all-backend --moe-backend
    --dtype --quantization -q --kv-cache-dtype --model-impl --hf-overrides --trust-remote-code
    --gpu-memory-utilization --kv-cache-memory-bytes --num-gpu-blocks-override --block-size --cpu-offload-gb
    --enable-prefix-caching --no-enable-prefix-caching --enable-chunked-prefill --no-enable-chunked-prefill
    --max-num-seqs --max-num-batched-tokens --async-scheduling --no-async-scheduling --attention-backend
    --enforce-eager --compilation-config -cc --optimization-level --max-cudagraph-capture-size
    --cudagraph-capture-sizes --language-model-only --seed --disable-log-stats --shutdown-timeout
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
_PYTHONS: Final = frozenset({"-m", "-u", "-I", "-B", "-E", "-s", "-P"})
_NUMBER: Final = re.compile(r"-\d[\d.eE+-]*")
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_VARIABLES: Final = {
    "RAY_ADDRESS": _SPANS_MACHINES,
    "VLLM_HOST_IP": _SPANS_MACHINES,
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
}
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


def check_command(command: Sequence[str]) -> None:
    """Raises: ValueError when it holds what belongs among the checked arguments."""
    for word in command[1:]:
        if word.startswith("-") and word not in _PYTHONS:
            raise ValueError(f"{word} belongs into `arguments`")


def check_arguments(arguments: Sequence[str]) -> None:
    """Raises: ValueError naming the first argument that is refused, and why."""
    name = ""
    for word in arguments:
        if word.startswith("-") and not _NUMBER.fullmatch(word):
            name, _, value = word.partition("=")
            name = _spelled(name)
            if name not in _ALLOWED:
                raise ValueError(f"{name} {_REFUSED.get(name, 'is not on the list of arguments that may be set')}")
        else:
            value = word
        if not name:
            raise ValueError("an argument begins with its name")
        if name == "--distributed-executor-backend" and value not in ("", "mp", "uni"):
            raise ValueError(f"{name} {value} {_SPANS_MACHINES}")


def check_environment(environment: Mapping[str, str]) -> None:
    """Raises: ValueError naming the first variable that is refused, and why."""
    for name in environment:
        if not _NAME.fullmatch(name):
            raise ValueError("a variable's name has capitals, digits and '_'")
        if name in _VARIABLES:
            raise ValueError(f"{name} {_VARIABLES[name]}")
        if name in _ENVIRONMENT and name not in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            raise ValueError(f"{name} {_OURS}")
        if name == "VLLM_API_KEY":
            raise ValueError(f"{name} {_OURS}; in a file it would be no secret")


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
    return kept | _ENVIRONMENT | dict(chosen) | {"VLLM_API_KEY": api_key}


def _spelled(name: str) -> str:
    """Spell a name as vLLM does: dashes up to the first dot, which begins a member."""
    head = name.partition(".")[0]
    return head.replace("_", "-")
