"""SGLang. Written from its released source, 0.5.23, and not run: no version of it counts as tested."""

from typing import Final

from confide_enclave.remote.completions import Completions
from confide_enclave.remote.servers.options import (
    GUESSES,
    LOGS,
    MODEL_MEMBERS,
    OTHER_CODE,
    OTHER_WEIGHTS,
    OURS,
    SHARES,
    SPANS_MACHINES,
    TORCH_ENVIRONMENT,
    TORCH_VARIABLES,
    Options,
    because,
    words,
)
from confide_enclave.remote.servers.server import Server, Start

_OPTIONS: Final = Options(
    flags=words("""
        --trust-remote-code --disable-cuda-graph --disable-custom-all-reduce --enable-dp-attention
        --disable-overlap-schedule --enable-torch-compile --enable-mixed-chunk --enable-deterministic-inference
    """),
    values=words("""
        --tp-size --tensor-parallel-size --pp-size --pipeline-parallel-size --ep-size --dtype --quantization
        --kv-cache-dtype --mem-fraction-static --max-running-requests --max-total-tokens --chunked-prefill-size
        --max-prefill-tokens --schedule-policy --page-size --attention-backend --sampling-backend --device
        --random-seed --watchdog-timeout --json-model-override-args
    """),
    members={"--json-model-override-args": MODEL_MEMBERS},
    refused=because(
        SPANS_MACHINES,
        """
        --nnodes --node-rank --dist-init-addr --use-ray --dp-size --data-parallel-size --disaggregation-mode
        --disaggregation-transfer-backend --disaggregation-bootstrap-port --nccl-port --kv-events-config
        """,
    )
    | because(
        GUESSES,
        "--speculative-algorithm --speculative-draft-model-path --speculative-num-steps --speculative-eagle-topk",
    )
    | because(
        LOGS,
        """
        --log-requests --log-requests-level --log-requests-target --crash-dump-folder --log-level --log-level-http
        --enable-trace --otlp-traces-endpoint --export-metrics-to-file --debug-tensor-dump-output-folder
        """,
    )
    | because(
        SHARES, "--enable-hierarchical-cache --hicache-storage-backend --enable-lmcache --radix-cache-backend"
    )
    | because(
        OTHER_WEIGHTS, "--load-format --tokenizer-path --lora-paths --enable-lora --model-loader-extra-config"
    )
    | because(OTHER_CODE, "--enable-custom-logit-processor --forward-hooks --tool-server")
    | because(
        OURS,
        """
        --model --model-path --served-model-name --host --port --api-key --admin-api-key --config --context-length
        --grammar-backend --sampling-defaults --disable-radix-cache --skip-tokenizer-init --allow-auto-truncate
        --stream-interval --incremental-streaming-output
        """,
    ),
    variables=TORCH_VARIABLES,
    environment=TORCH_ENVIRONMENT | {"SGLANG_HOST_IP": "127.0.0.1"},
)


def _own(start: Start) -> list[str]:
    """Return what the enclave adds. The file has the key, which every process could read among arguments."""
    return [
        "--config", start.key_file, "--model-path", start.weights, "--served-model-name", start.name,
        "--host", "127.0.0.1", "--port", start.address, "--context-length", str(start.context_tokens),
        "--disable-radix-cache", "--grammar-backend", "llguidance", "--sampling-defaults", "openai",
        "--stream-interval", "1", "--log-level", "warning", "--log-level-http", "error",
    ]  # fmt: skip


SGLANG: Final = Server(
    name="sglang",
    tested=frozenset(),
    weights="directory",
    wire=Completions("/server_info", grammar="ebnf", no_top_k=-1, salts=False),
    options=_OPTIONS,
    own=_own,
    socket="",
    key_variable="",
    spare_tokens=8,
    repeats_prompt=True,
    logprobs=False,
    grammars="always",
)
