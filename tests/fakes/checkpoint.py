"""Writes a published directory: a toy llama, qwen2 or qwen3 with its configuration, tokenizer and shards."""

import json
from pathlib import Path

import numpy as np
from confide_enclave.engine.pretokenizers import PRE_TOKENIZERS

from tests.fakes import gguf as fake

WIDTH, HEADS, KV_HEADS, HIDDEN, LAYERS = fake.WIDTH, fake.HEADS, fake.KV_HEADS, fake.HIDDEN, fake.LAYERS
DTYPES = {"F32": "<f4", "F16": "<f2"}


def config(family: str = "llama", **changes) -> dict:
    base = {
        "model_type": family, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "intermediate_size": HIDDEN, "max_position_embeddings": fake.CONTEXT,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000, "hidden_act": "silu", "rope_scaling": None,
        "vocab_size": len(fake.toy_metadata()["tokenizer.ggml.tokens"]), "eos_token_id": 2,
    }  # fmt: skip
    return base | ({"head_dim": 16} if family == "qwen3" else {}) | changes


def tokenizer(pre: str = "smollm") -> dict:
    metadata = fake.toy_metadata()
    names, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    words = {name: n for n, name in enumerate(names) if kinds[n] == 1}
    tree = json.loads(PRE_TOKENIZERS[pre].encoder(words, merges).to_str())
    return tree | {"added_tokens": [added(n, name) for n, name in enumerate(names) if kinds[n] == 3]}


def added(number: int, name: str, *, special: bool = True) -> dict:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": name, "special": special, **plain}


def tokenizer_config() -> dict:
    return {
        "bos_token": "<|im_start|>",
        "eos_token": {"content": "<|im_end|>"},
        "chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": fake.TEMPLATE}],
    }


def tensors(family: str = "llama", seed: int = 0, tied: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    head_dim = 16 if family == "qwen3" else WIDTH // HEADS
    query, kv = HEADS * head_dim, KV_HEADS * head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config()["vocab_size"], WIDTH),
        "model.norm.weight": (WIDTH,),
        "lm_head.weight": (config()["vocab_size"], WIDTH),
    }
    if tied:
        del shapes["lm_head.weight"]
    parts = {
        "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,), "self_attn.q_proj": (query, WIDTH),
        "self_attn.k_proj": (kv, WIDTH), "self_attn.v_proj": (kv, WIDTH), "self_attn.o_proj": (WIDTH, query),
        "mlp.gate_proj": (HIDDEN, WIDTH), "mlp.up_proj": (HIDDEN, WIDTH), "mlp.down_proj": (WIDTH, HIDDEN),
    }  # fmt: skip
    if family == "qwen3":
        parts |= {"self_attn.q_norm": (head_dim,), "self_attn.k_norm": (head_dim,)}
    for layer in range(LAYERS):
        shapes |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in parts.items()}
        if family == "qwen2":
            sizes = {"q": query, "k": kv, "v": kv}
            shapes |= {f"model.layers.{layer}.self_attn.{x}_proj.bias": (n,) for x, n in sizes.items()}
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def safetensors(arrays: dict[str, np.ndarray], dtype: str = "F32", **extra) -> bytes:
    """Return one file; `extra` are further members of the header."""
    header, body = dict(extra), b""
    for name, array in arrays.items():
        data = array.astype(DTYPES[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def write(directory: Path, family: str = "llama", shards: int = 1, **changes) -> Path:
    """Write a whole directory and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    arrays = tensors(family)
    trees = {
        "config.json": config(family, **changes),
        "tokenizer.json": tokenizer("smollm" if family == "llama" else "qwen2"),
        "tokenizer_config.json": tokenizer_config(),
    }
    if shards == 1:
        (directory / "model.safetensors").write_bytes(safetensors(arrays, __metadata__={"format": "pt"}))
    else:
        names = [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
        places = {name: names[n % shards] for n, name in enumerate(arrays)}
        trees["model.safetensors.index.json"] = {"metadata": {}, "weight_map": places}
        for name in names:
            part = {tensor: array for tensor, array in arrays.items() if places[tensor] == name}
            (directory / name).write_bytes(safetensors(part))
    for name, tree in trees.items():
        (directory / name).write_text(json.dumps(tree))
    return directory
