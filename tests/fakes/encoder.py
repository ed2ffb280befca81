"""Writes a toy BERT encoder with random weights, and computes its vectors by definition, in float64."""

import json
import math
from pathlib import Path

import numpy as np

from tests.fakes.checkpoint import safetensors

LAYERS, WIDTH, HEADS, HIDDEN, POSITIONS = 2, 16, 4, 24, 12
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "sat", "[", "]", "sep"]


def config(**changes) -> dict:
    return {
        "model_type": "bert", "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": HIDDEN, "max_position_embeddings": POSITIONS, "vocab_size": len(WORDS),
        "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    } | changes  # fmt: skip


def tokenizer() -> dict:
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [{"id": n, "content": WORDS[n], **special} for n in range(4)],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {word: n for n, word in enumerate(WORDS)},
        },
    }  # fmt: skip


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
        "pooler.dense.weight": (WIDTH, WIDTH),
    }
    dense = {
        "attention.self.query": (WIDTH, WIDTH), "attention.self.key": (WIDTH, WIDTH),
        "attention.self.value": (WIDTH, WIDTH), "attention.output.dense": (WIDTH, WIDTH),
        "intermediate.dense": (HIDDEN, WIDTH), "output.dense": (WIDTH, HIDDEN),
    }  # fmt: skip
    for layer in range(LAYERS):
        for name, (out, width) in dense.items():
            shapes |= {f"encoder.layer.{layer}.{name}.weight": (out, width)}
            shapes |= {f"encoder.layer.{layer}.{name}.bias": (out,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"encoder.layer.{layer}.{name}.{part}": (WIDTH,) for part in ("weight", "bias")}
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def oracle(weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    def get(name: str) -> np.ndarray:
        return weights[name].astype(np.float64)

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ get(f"{name}.weight").T + get(f"{name}.bias")

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * get(f"{name}.weight") + get(f"{name}.bias")

    x = get("embeddings.word_embeddings.weight")[ids] + get("embeddings.position_embeddings.weight")[: len(ids)]
    x = norm(x + get("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        part = f"encoder.layer.{layer}.{{}}".format
        q, k, v = (
            dense(x, part(f"attention.self.{name}")).reshape(len(ids), HEADS, -1)
            for name in ("query", "key", "value")
        )
        scores = np.exp(np.einsum("ihd,jhd->hij", q, k) / math.sqrt(WIDTH // HEADS))
        mixed = np.einsum("hij,jhd->ihd", scores / scores.sum(-1, keepdims=True), v).reshape(len(ids), WIDTH)
        x = norm(x + dense(mixed, part("attention.output.dense")), part("attention.output.LayerNorm"))
        up = dense(x, part("intermediate.dense"))
        gelu = up * (1 + np.vectorize(math.erf)(up / math.sqrt(2))) / 2
        x = norm(x + dense(gelu, part("output.dense")), part("output.LayerNorm"))
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def write(directory: Path, prefix: str = "", **changes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config(**changes)))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    arrays = {prefix + name: array for name, array in tensors().items()}
    (directory / "model.safetensors").write_bytes(safetensors(arrays))
    return directory
