"""From a model file to the arrays that the engine computes with. The same bits on every machine; needs no torch.

Quantised matrices are `<name>.rows` and `<name>.scales`. Of 8 bits: int8 levels with one scale per row. Of 4 bits:
two levels in each byte, with scale and minimum in float16 for each group of GROUP columns. Q4_1 has just such
groups, and keeps every weight.

Where the residual is to meet weights in 8 bits, the model is turned: every matrix that reads or writes the residual
has it rotated by a Hadamard matrix, which cancels between them. The rotation spreads the few channels that are far
greater than the rest over many; one scale for a whole row would round the rest away. Norm weights do not commute
with it, so they are in the columns of the matrix that comes next, and the head is a matrix of its own.
"""

import math
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
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
_NIBBLE: Final = 15
_LEAST: Final = np.float32(1e-30)


def is_turned(scheme: Scheme) -> bool:
    """Return whether models of the scheme are turned, and have no norm weights of their own."""
    return scheme == "w8a8"


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
    turned = is_turned(scheme)
    # Embeddings are looked up by row, so they stay at 8 bits where matrices take 4.
    table: Scheme = "w8a8" if scheme == "w4a16" else scheme

    def after_norm(name: str, values: F32, norm: str, tensor: str, kind: Scheme) -> Iterator[tuple[str, Array]]:
        weight = array(tensor, width)
        if not turned:
            yield norm, weight
        yield from _matrix(name, _turn(values * weight) if turned else values, kind)

    def before_sum(name: str, values: F32) -> Iterator[tuple[str, Array]]:
        return _matrix(name, _turn(values.T).T if turned else values, scheme)

    embedding = array("token_embd.weight", config.vocabulary, width)
    yield from _matrix("embedding", _turn(embedding) if turned else embedding, table)
    if turned or "output.weight" in gguf.tensors:
        own = "output.weight" in gguf.tensors
        head = array("output.weight", config.vocabulary, width) if own else embedding
        yield from after_norm("head", head, "norm", "output_norm.weight", table)
    else:
        yield "norm", array("output_norm.weight", width)
    for number in range(config.layers):
        part, name = f"blk.{number}.{{}}".format, f"layers.{number}.{{}}".format
        q = array(part("attn_q.weight"), query, width)
        k = array(part("attn_k.weight"), kv_width, width)
        if family == "llama":
            q, k = _halves_layout(q, config.heads), _halves_layout(k, config.kv_heads)
        qkv = np.concatenate([q, k, array(part("attn_v.weight"), kv_width, width)])
        yield from after_norm(name("qkv"), qkv, name("attn_norm"), part("attn_norm.weight"), scheme)
        if config.qkv_bias:
            sizes = (("attn_q.bias", query), ("attn_k.bias", kv_width), ("attn_v.bias", kv_width))
            yield name("qkv.bias"), np.concatenate([array(part(bias), size) for bias, size in sizes])
        if config.head_norm:
            yield name("q_norm"), array(part("attn_q_norm.weight"), config.head_dim)
            yield name("k_norm"), array(part("attn_k_norm.weight"), config.head_dim)
        yield from before_sum(name("output"), array(part("attn_output.weight"), width, query))
        gate_up = np.concatenate(
            [array(part(f"ffn_{half}.weight"), config.hidden, width) for half in ("gate", "up")]
        )
        yield from after_norm(name("gate_up"), gate_up, name("ffn_norm"), part("ffn_norm.weight"), scheme)
        yield from before_sum(name("down"), array(part("ffn_down.weight"), width, config.hidden))


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
        nibbles, ends = _round_groups(values.reshape(out, -1, GROUP))
        if not np.isfinite(ends).all():
            raise ConfigError(name, "quantisation", "needs weights that float16 can hold; use w8a8")
        nibbles = nibbles.reshape(out, -1, 2)
        yield f"{name}.rows", nibbles[..., 0] | nibbles[..., 1] << 4
        yield f"{name}.scales", ends
    else:
        levels, scales = _round(values)
        if not np.isfinite(scales).all():
            raise ConfigError(name, "quantisation", "needs weights that float32 can hold, times their norm's")
        yield f"{name}.rows", levels.astype(np.int8)
        yield f"{name}.scales", scales.reshape(-1)


def _round(values: F32) -> tuple[F32, F32]:
    """Round the last dimension to whole levels of its greatest magnitude; return them and what one level is."""
    scales = np.maximum(np.abs(values).max(-1, keepdims=True), _LEAST) / _LEVELS
    return np.rint(values / scales), scales


def _round_groups(values: F32) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Round the last dimension to 16 levels from its least to its greatest; return them, and scale and minimum."""
    least = values.min(-1, keepdims=True)
    with np.errstate(over="ignore"):
        scales = np.concatenate([(values.max(-1, keepdims=True) - least) / _NIBBLE, least], -1).astype(np.float16)
    one, zero = np.split(scales.astype(np.float32), 2, -1)
    with np.errstate(invalid="ignore"):
        levels = np.rint((values - zero) / np.maximum(one, _LEAST))
    return np.clip(levels, 0, _NIBBLE).astype(np.uint8), scales


def _turn(values: F32) -> F32:
    """Return `values @ H`: H is symmetric, orthogonal, and +-1 times a constant.

    It is made of blocks, as wide as the greatest power of two that the last dimension is a multiple of. Sums have
    one order, so the bits are the same on every machine.
    """
    width = values.shape[-1]
    block = width & -width
    turned = np.array(values, np.float32, order="C")
    step = 1
    while step < block:
        pairs = turned.reshape(-1, 2, step)
        sums = pairs[:, 0] + pairs[:, 1]
        np.subtract(pairs[:, 0], pairs[:, 1], out=pairs[:, 1])
        pairs[:, 0] = sums
        step *= 2
    turned *= np.float32(1 / math.sqrt(block))
    return turned


def _halves_layout(rows: F32, heads: int) -> F32:
    """Undo llama.cpp's order of query and key rows (pairs side by side) for rope in halves."""
    _, width = rows.shape
    return rows.reshape(heads, -1, 2, width).swapaxes(1, 2).reshape(rows.shape)
