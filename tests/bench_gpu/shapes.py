"""Decoders of a published shape with random weights, made in memory."""

from typing import NamedTuple

import numpy as np
from confide_enclave.engine.convert import GROUP, Scheme, is_turned
from confide_enclave.engine.gguf import parse_gguf
from confide_enclave.engine.package import Model

from tests.fakes import gguf


class Shape(NamedTuple):
    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    context: int


QWEN3_06B = Shape("Qwen3-0.6B", 28, 1024, 16, 8, 128, 3072, 151_936, 40_960)
TINY = Shape("tiny", 2, 32, 4, 2, 16, 64, 300, 512)


def make(shape: Shape, scheme: Scheme) -> Model:
    """Return a model whose head is its embedding, as it is after conversion."""
    metadata, draw = parse_gguf(gguf.write(_metadata(shape), {}), f"{shape.name}.gguf"), np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}

    def matrix(name: str, out: int, width: int, kind: Scheme = scheme) -> None:
        if kind == "none":
            arrays[f"{name}.rows"] = draw.standard_normal((out, width), np.float32) * np.float32(0.02)
        elif kind == "w4a16":
            arrays[f"{name}.rows"] = draw.integers(0, 256, (out, width // 2), np.uint8)
            ends = np.array([0.02 / 4, -0.02 * 7.5 / 4], np.float16)
            arrays[f"{name}.scales"] = np.broadcast_to(ends, (out, width // GROUP, 2)).copy()
        else:
            arrays[f"{name}.rows"] = draw.integers(-127, 128, (out, width), np.int8)
            arrays[f"{name}.scales"] = np.full(out, 0.02 / 73, np.float32)

    table: Scheme = "w8a8" if scheme == "w4a16" else scheme
    matrix("embedding", shape.vocabulary, shape.width, table)
    ones, turned = np.ones(shape.width, np.float32), is_turned(scheme)
    if turned:
        matrix("head", shape.vocabulary, shape.width, table)
    else:
        arrays["norm"] = ones
    query, both = shape.heads * shape.head_dim, (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    for number in range(shape.layers):
        name = f"layers.{number}.{{}}".format
        if not turned:
            arrays |= {name("attn_norm"): ones, name("ffn_norm"): ones}
        arrays |= {name(each): np.ones(shape.head_dim, np.float32) for each in ("q_norm", "k_norm")}
        matrix(name("qkv"), both, shape.width)
        matrix(name("output"), shape.width, query)
        matrix(name("gate_up"), 2 * shape.hidden, shape.width)
        matrix(name("down"), shape.width, shape.hidden)
    return Model(metadata, arrays, scheme, bytes(32), bytes(32))


def _metadata(shape: Shape) -> dict:
    """Of a tokenizer whose every letter is a token; the rest of the vocabulary is never read, but may be drawn."""
    toy = gguf.toy_metadata()
    tokens = toy["tokenizer.ggml.tokens"]
    tokens += [f"unread{number}" for number in range(shape.vocabulary - len(tokens))]
    own = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.width,
        "feed_forward_length": shape.hidden,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
    }
    kept = {key: value for key, value in toy.items() if not key.startswith("llama.")}
    return kept | {
        "general.architecture": "qwen3",
        **{f"qwen3.{key}": value for key, value in own.items()},
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": toy["tokenizer.ggml.token_type"]
        + [1] * (len(tokens) - len(toy["tokenizer.ggml.token_type"])),
    }
