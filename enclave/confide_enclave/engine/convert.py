"""From a model file to the arrays that the engine computes with. The same bits on every machine; needs no torch.

Norm weights before a layer's matrices are folded into their columns. Quantised matrices are `<name>.rows` and
`<name>.scales`: int8 levels with one scale per row, or (w4a16) two levels of 4 bits in each byte, plus 8, with one
scale per group of GROUP columns.
"""

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
from confide_protocol.errors import ConfigError

from confide_enclave.engine.config import DecoderConfig, architecture, read_config
from confide_enclave.engine.gguf import F32, Gguf
from confide_enclave.engine.store import Array

Scheme = Literal["w8a8", "w8a16", "w4a16", "none"]
GROUP: Final = 32
_PARTS: Final = (
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down",
)  # fmt: skip
_LEVELS: Final = np.float32(127)
_LEAST: Final = np.float32(1e-30)


def convert(gguf: Gguf, scheme: Scheme) -> Iterator[tuple[str, Array]]:
    """Yield every array of the model, one at a time. Raises: ConfigError on a missing, odd or extra tensor."""
    config, family = read_config(gguf), architecture(gguf)
    known = {"token_embd.weight", "output_norm.weight", "output.weight", *_layer_tensors(config)}
    if extra := gguf.tensors.keys() - known:
        raise ConfigError(gguf.file, min(extra), f"is a tensor that a plain {family} model does not have")

    def array(name: str, *shape: int) -> F32:
        values = gguf.array(name)
        if values.shape != shape:
            raise ConfigError(gguf.file, name, f"has the shape {values.shape}; the metadata says {shape}")
        if not np.isfinite(values.sum(dtype=np.float64)):
            raise ConfigError(gguf.file, name, "holds a value that is not finite; fetch the file again")
        return values

    width, kv_width, query = config.width, config.kv_heads * config.head_dim, config.heads * config.head_dim
    # Embeddings are looked up by row, so they stay at 8 bits where matrices take 4.
    table: Scheme = "w8a8" if scheme == "w4a16" else scheme
    yield from _matrix("embedding", array("token_embd.weight", config.vocabulary, width), table)
    yield "norm", array("output_norm.weight", width)
    if "output.weight" in gguf.tensors:
        yield from _matrix("head", array("output.weight", config.vocabulary, width), table)
    for number in range(config.layers):
        part, name = f"blk.{number}.{{}}".format, f"layers.{number}.{{}}".format
        q = array(part("attn_q.weight"), query, width)
        k = array(part("attn_k.weight"), kv_width, width)
        if family == "llama":
            q, k = _halves_layout(q, config.heads), _halves_layout(k, config.kv_heads)
        qkv = np.concatenate([q, k, array(part("attn_v.weight"), kv_width, width)])
        yield from _matrix(name("qkv"), qkv * array(part("attn_norm.weight"), width), scheme)
        if config.qkv_bias:
            sizes = (("attn_q.bias", query), ("attn_k.bias", kv_width), ("attn_v.bias", kv_width))
            yield name("qkv.bias"), np.concatenate([array(part(bias), size) for bias, size in sizes])
        if config.head_norm:
            yield name("q_norm"), array(part("attn_q_norm.weight"), config.head_dim)
            yield name("k_norm"), array(part("attn_k_norm.weight"), config.head_dim)
        yield from _matrix(name("output"), array(part("attn_output.weight"), width, query), scheme)
        gate_up = [array(part(f"ffn_{half}.weight"), config.hidden, width) for half in ("gate", "up")]
        yield from _matrix(name("gate_up"), np.concatenate(gate_up) * array(part("ffn_norm.weight"), width), scheme)
        yield from _matrix(name("down"), array(part("ffn_down.weight"), width, config.hidden), scheme)


def _layer_tensors(config: DecoderConfig) -> Iterator[str]:
    parts = [f"{part}.weight" for part in _PARTS]
    if config.qkv_bias:
        parts += ["attn_q.bias", "attn_k.bias", "attn_v.bias"]
    if config.head_norm:
        parts += ["attn_q_norm.weight", "attn_k_norm.weight"]
    return (f"blk.{number}.{part}" for number in range(config.layers) for part in parts)


def _matrix(name: str, values: F32, scheme: Scheme) -> Iterator[tuple[str, Array]]:
    if scheme == "none":
        yield f"{name}.rows", values
    elif scheme == "w4a16":
        out, width = values.shape
        if width % GROUP:
            raise ConfigError(name, "quantisation", f"needs matrices of a multiple of {GROUP} columns; use w8a8")
        levels, scales = _round(values.reshape(out, -1, GROUP), np.float32(7))
        nibbles = (levels + 8).astype(np.uint8).reshape(out, -1, 2)
        yield f"{name}.rows", nibbles[..., 0] | nibbles[..., 1] << 4
        yield f"{name}.scales", scales.reshape(out, -1)
    else:
        levels, scales = _round(values, _LEVELS)
        yield f"{name}.rows", levels.astype(np.int8)
        yield f"{name}.scales", scales.reshape(-1)


def _round(values: F32, most: np.float32) -> tuple[F32, F32]:
    """Round the last dimension to whole levels of its greatest magnitude; return them and what one level is."""
    scales = np.maximum(np.abs(values).max(-1, keepdims=True), _LEAST) / most
    return np.rint(values / scales), scales


def _halves_layout(rows: F32, heads: int) -> F32:
    """Undo llama.cpp's order of query and key rows (pairs side by side) for rope in halves."""
    _, width = rows.shape
    return rows.reshape(heads, -1, 2, width).swapaxes(1, 2).reshape(rows.shape)
