"""A llama decoder's configuration and weights, checked, out of a GGUF file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from confide_protocol.errors import ConfigError
from torch import Tensor

from confide_enclave.engine.gguf import F32, Gguf

MAX_LAYERS: Final = 512
_LAYER_TENSORS: Final = (
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down",
)  # fmt: skip


@dataclass(frozen=True)
class LlamaConfig:
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    context_tokens: int
    rope_base: float
    epsilon: float


@dataclass(frozen=True)
class LayerWeights:
    """Norms are float32; matrices are [out, in] of the engine's dtype. `qkv` and `gate_up` are stacked."""

    attention_norm: Tensor
    qkv: Tensor
    output: Tensor
    feed_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True)
class LlamaWeights:
    config: LlamaConfig
    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: Tensor


def read_config(gguf: Gguf) -> LlamaConfig:
    """Read and check the metadata of a llama decoder. Raises: ConfigError."""
    if gguf.get("general.architecture", str) != "llama":
        raise ConfigError(gguf.file, "general.architecture", "is not supported; use a llama model")

    def count(key: str, limit: int, default: int | None = None) -> int:
        number: int = gguf.get(f"llama.{key}", int, default)
        if not 1 <= number <= limit:
            raise ConfigError(gguf.file, f"llama.{key}", f"must be 1 to {limit}")
        return number

    width, heads = count("embedding_length", 1 << 16), count("attention.head_count", 1 << 10)
    kv_heads = count("attention.head_count_kv", heads, heads)
    head_dim = count("rope.dimension_count", 1 << 10, width // heads)
    if heads * head_dim != width or heads % kv_heads or head_dim % 2:
        raise ConfigError(
            gguf.file, "llama.attention.head_count", "does not divide the model's width into even heads"
        )
    if gguf.get("llama.rope.scaling.type", str, "none") != "none":
        raise ConfigError(
            gguf.file, "llama.rope.scaling.type", "is not supported; use a model without RoPE scaling"
        )
    base: float = gguf.get("llama.rope.freq_base", float, 10_000.0)
    epsilon: float = gguf.get("llama.attention.layer_norm_rms_epsilon", float)
    if not (1 < base < 1e12 and 0 < epsilon < 1):
        raise ConfigError(gguf.file, "llama.rope.freq_base", "or layer_norm_rms_epsilon is out of range")
    return LlamaConfig(
        layers=count("block_count", MAX_LAYERS),
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=count("feed_forward_length", 1 << 18),
        vocabulary=len(gguf.strings("tokenizer.ggml.tokens")),
        context_tokens=count("context_length", 1 << 24),
        rope_base=base,
        epsilon=epsilon,
    )


def load_weights(gguf: Gguf, dtype: torch.dtype) -> LlamaWeights:
    """Dequantise every tensor; matrices become `dtype`. Raises: ConfigError on a missing, odd, or extra tensor."""
    config = read_config(gguf)
    expected = {"token_embd.weight", "output_norm.weight", *_layer_names(config)}
    if extra := gguf.tensors.keys() - expected - {"output.weight"}:
        raise ConfigError(gguf.file, min(extra), "is a tensor that a plain llama model does not have")

    def array(name: str, *shape: int) -> F32:
        values = gguf.array(name)
        if values.shape != shape:
            raise ConfigError(gguf.file, name, f"has the shape {values.shape}; the metadata says {shape}")
        if not np.isfinite(values.sum(dtype=np.float64)):
            raise ConfigError(gguf.file, name, "holds a value that is not finite; fetch the file again")
        return values

    def matrix(*arrays: F32) -> Tensor:
        return torch.cat([torch.from_numpy(values).to(dtype) for values in arrays])

    def layer(number: int) -> LayerWeights:
        width, kv_width = config.width, config.kv_heads * config.head_dim
        part = f"blk.{number}.{{}}.weight".format
        return LayerWeights(
            attention_norm=torch.from_numpy(array(part("attn_norm"), width)),
            qkv=matrix(
                _halves_layout(array(part("attn_q"), width, width), config.heads),
                _halves_layout(array(part("attn_k"), kv_width, width), config.kv_heads),
                array(part("attn_v"), kv_width, width),
            ),
            output=matrix(array(part("attn_output"), width, width)),
            feed_norm=torch.from_numpy(array(part("ffn_norm"), width)),
            gate_up=matrix(
                array(part("ffn_gate"), config.hidden, width), array(part("ffn_up"), config.hidden, width)
            ),
            down=matrix(array(part("ffn_down"), width, config.hidden)),
        )

    embedding = matrix(array("token_embd.weight", config.vocabulary, config.width))
    tied = "output.weight" not in gguf.tensors
    return LlamaWeights(
        config=config,
        embedding=embedding,
        layers=tuple(layer(number) for number in range(config.layers)),
        norm=torch.from_numpy(array("output_norm.weight", config.width)),
        head=embedding if tied else matrix(array("output.weight", config.vocabulary, config.width)),
    )


def _layer_names(config: LlamaConfig) -> Iterator[str]:
    return (f"blk.{n}.{part}.weight" for n in range(config.layers) for part in _LAYER_TENSORS)


def _halves_layout(rows: F32, heads: int) -> F32:
    """Undo llama.cpp's order of query and key rows (pairs side by side) for rope in halves."""
    _, width = rows.shape
    return rows.reshape(heads, -1, 2, width).swapaxes(1, 2).reshape(rows.shape)
