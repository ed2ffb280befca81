"""llama.cpp's `llama-server`: GGUF files on a processor, or over the GPUs of this machine."""

from typing import Final

from confide_enclave.remote.native import Native
from confide_enclave.remote.servers.options import (
    GUESSES,
    LOGS,
    OTHER_CODE,
    OTHER_WEIGHTS,
    OURS,
    SHARES,
    SPANS_MACHINES,
    Options,
    because,
    words,
)
from confide_enclave.remote.servers.server import Server, Start

# It rounds a context up.
_CONTEXT_STEP: Final = 256
_OPTIONS: Final = Options(
    flags=words("""
        --cpu-moe -cmoe --no-kv-offload -nkvo --no-op-offload --no-repack --no-host --check-tensors --swa-full
        --no-cont-batching -nocb
    """),
    values=words("""
        --threads -t --threads-batch -tb --threads-http --batch-size -b --ubatch-size -ub --flash-attn -fa
        --cache-type-k -ctk --cache-type-v -ctv --numa --device -dev --gpu-layers --n-gpu-layers -ngl
        --split-mode -sm --tensor-split -ts --main-gpu -mg --n-cpu-moe -ncmoe --cpu-mask -C --cpu-range -Cr
        --cpu-strict --prio --poll --load-mode -lm --rope-scaling --rope-scale --rope-freq-base
        --rope-freq-scale --yarn-orig-ctx --yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast
    """),
    refused=because(SPANS_MACHINES, "--rpc")
    | because(
        GUESSES,
        "--model-draft -md --spec-type --spec-default --spec-draft-model --lookup-cache-static -lcs "
        "--lookup-cache-dynamic -lcd",
    )
    | because(LOGS, "--log-file --log-prompts-dir --verbose -v --log-verbose --slots --metrics")
    | because(
        SHARES, "--cache-prompt --cache-reuse --slot-save-path --slot-prompt-similarity -sps --kv-unified -kvu"
    )
    | because(
        OTHER_WEIGHTS,
        "--model-url -mu --hf-repo -hf -hfr --docker-repo -dr --lora --lora-scaled --control-vector "
        "--control-vector-scaled --override-kv --models-dir --models-preset --mmproj",
    )
    | because(OTHER_CODE, "--path --tools --mcp-servers-config --media-path")
    | because(
        OURS,
        "--model -m --alias -a --host --port --api-key --api-key-file --ctx-size -c --parallel -np --predict -n "
        "--n-predict --samplers --seed -s --temp --grammar --log-verbosity --verbosity -lv --log-disable --offline "
        "--props --cache-ram -cram",
    ),
    variables=words("CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER OMP_NUM_THREADS GGML_CUDA_P2P GGML_CUDA_GRAPH_OPT"),
    refused_variables={"LLAMA_LOG_FILE": LOGS, "LLAMA_ARG_RPC": SPANS_MACHINES, "GGML_BACKEND_PATH": OTHER_CODE},
    environment={"HF_HUB_OFFLINE": "1", "LLAMA_OFFLINE": "1"},
)


def _own(start: Start) -> list[str]:
    """Return what the enclave adds: a place for each request, and nothing kept from one to the next."""
    slot = -(-start.context_tokens // _CONTEXT_STEP) * _CONTEXT_STEP
    return [
        "--model", start.weights, "--alias", start.name, "--host", start.address,
        "--ctx-size", str(slot * start.max_requests), "--parallel", str(start.max_requests), "--no-kv-unified",
        "--no-cache-prompt", "--cache-ram", "0", "--ctx-checkpoints", "0", "--no-context-shift",
        "--slot-prompt-similarity", "0", "--no-slots", "--no-ui", "--offline", "--log-verbosity", "1",
    ]  # fmt: skip


LLAMA_CPP: Final = Server(
    name="llama.cpp",
    tested=frozenset({"b0-py0.3.36"}),  # the source that llama-cpp-python 0.3.36 carries
    weights="file",
    wire=Native(),
    options=_OPTIONS,
    own=_own,
    socket="llama.sock",  # it knows one by the end of its name
    key_variable="LLAMA_API_KEY",
    spare_tokens=2,
    repeats_prompt=False,
    logprobs=True,
    grammars="asked",
)
