"""The default model as the peers read it: a published directory in float32, made once of the same GGUF file."""

import json
from pathlib import Path

import numpy as np
from confide_enclave.engine.card import default_weights
from confide_enclave.engine.checkpoint import gguf_name
from confide_enclave.engine.config import read_config
from confide_enclave.engine.package import read_weights
from confide_enclave.engine.store import write_arrays

from tests.bench.subjects import PEERS

FOLDER = PEERS / "engine_weights"
_PARTS = (
    "input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
    "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


def published() -> Path:
    """Write config.json and model.safetensors, and link the GGUF file, unless they are there; return the folder."""
    if (FOLDER / "config.json").exists():
        return FOLDER
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "model.gguf").unlink(missing_ok=True)
    (FOLDER / "model.gguf").symlink_to(default_weights())
    gguf, _ = read_weights(default_weights())
    config = read_config(gguf)
    names = ["model.embed_tokens.weight", "model.norm.weight"]
    names += [f"model.layers.{layer}.{part}.weight" for layer in range(config.layers) for part in _PARTS]
    heads = {"q_proj": config.heads, "k_proj": config.kv_heads}

    def array(name: str) -> np.ndarray:
        values = gguf.array(gguf_name(name))
        if (rotated := name.split(".")[-2]) not in heads:
            return values
        # llama.cpp keeps the two halves that rope turns side by side.
        return values.reshape(heads[rotated], -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)

    write_arrays(FOLDER / "model.safetensors", {name: array(name) for name in names})
    tree = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "max_position_embeddings": config.context_tokens,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.epsilon,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "tie_word_embeddings": True,
        "vocab_size": config.vocabulary,
        "dtype": "float32",
    }
    (FOLDER / "config.json").write_text(json.dumps(tree))
    return FOLDER
