"""A decoder (llama, qwen2, qwen3) as one forward pass over packed tokens. Calls confide_kernels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from confide_kernels import activation, attention, gemm, norm, rope
from confide_kernels.attention import Span, Spans
from confide_kernels.gemm import Product
from torch import Tensor

from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.weights import DecoderWeights, LayerWeights, Matrix


@dataclass(frozen=True)
class Batch:
    """Packed tokens of one step: any mix of chunks and single rows, each sequence's together.

    tokens, positions: [n] int64; rows: the pool's row of each, [n] int64; spans: what each sequence attends to;
    wanted: the packed rows to give logits for, [m] int64.
    """

    tokens: Tensor
    positions: Tensor
    rows: Tensor
    spans: Sequence[Span]
    wanted: Tensor


class Decoder:
    """Weights of scheme w8a8 are computed with exactly, all others in the floats of their own dtype."""

    def __init__(self, weights: DecoderWeights, context_tokens: int) -> None:
        self._weights, self._config = weights, weights.config
        self._turns = rope.table(context_tokens, weights.config.head_dim, weights.config.rope_base)

    def forward(self, batch: Batch, pool: KvPool) -> Tensor:
        """Run the packed tokens, write their keys and values; return logits, [wanted, vocabulary] float32."""
        residual = _look_up(self._weights.embedding, batch.tokens)
        forward = self._forward_exact if self._weights.exact else self._forward_float
        return forward(residual, batch, Spans.of(batch.spans), pool)

    def _forward_exact(self, residual: Tensor, batch: Batch, spans: Spans, pool: KvPool) -> Tensor:
        weights, epsilon = self._weights, self._config.epsilon
        added: Product | None = None
        for layer, cache in zip(weights.layers, pool.layers, strict=True):
            x = norm.add_rms_norm_int8(residual, added, epsilon)
            qkv = gemm.linear_w8a8(x, *layer.qkv)
            heads = rope.Heads(layer.qkv_bias, layer.q_norm, layer.k_norm, epsilon)
            queries, tops = rope.rotate_store(qkv, heads, self._turns, batch.positions, cache, batch.rows)
            added = gemm.linear_w8a8(attention.attend_int8(queries, tops, cache, spans), *layer.output)
            gate_up = gemm.linear_w8a8(norm.add_rms_norm_int8(residual, added, epsilon), *layer.gate_up)
            added = gemm.linear_w8a8(activation.silu_mul_int8(gate_up), *layer.down)
        if added is not None:
            added = added.rows(batch.wanted)
        last = norm.add_rms_norm_int8(residual.index_select(0, batch.wanted), added, epsilon)
        return gemm.linear_w8a8(last, *weights.head).floats()

    def _forward_float(self, residual: Tensor, batch: Batch, spans: Spans, pool: KvPool) -> Tensor:
        weights = self._weights
        turns = self._turns.index_select(0, batch.positions)
        for layer, cache in zip(weights.layers, pool.layers, strict=True):
            x = self._norm(residual, layer.attn_norm)
            residual.add_(self._attend(x, layer, turns, batch.rows, spans, cache.data))
            gate_up = _multiply(self._norm(residual, layer.ffn_norm), layer.gate_up)
            residual.add_(_multiply(activation.silu_mul(gate_up), layer.down))
        return _multiply(self._norm(residual.index_select(0, batch.wanted), weights.norm), weights.head).float()

    def _attend(
        self, x: Tensor, layer: LayerWeights, turns: Tensor, rows: Tensor, spans: Spans, cache: Tensor
    ) -> Tensor:
        config = self._config
        qkv = _multiply(x, layer.qkv).float()
        if layer.qkv_bias is not None:
            qkv.add_(layer.qkv_bias)
        heads, turned = config.heads, config.heads + config.kv_heads
        qkv = qkv.view(len(qkv), heads + 2 * config.kv_heads, config.head_dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            qkv[:, :heads] = norm.head_norm_exact(qkv[:, :heads], layer.q_norm, config.epsilon)
            qkv[:, heads:turned] = norm.head_norm_exact(qkv[:, heads:turned], layer.k_norm, config.epsilon)
        rope.rotate(qkv[:, :turned], turns)
        qkv = qkv.to(cache.dtype)
        cache[:, rows] = qkv[:, heads:].view(len(qkv), 2, config.kv_heads, -1).transpose(0, 1)
        out = attention.attend(qkv[:, :heads], cache[0], cache[1], spans)
        return _multiply(out.flatten(1), layer.output)

    def _norm(self, residual: Tensor, weight: Tensor | None) -> Tensor:
        return norm.rms_norm(residual, weight, self._config.epsilon, self._weights.dtype)


def _multiply(x: Tensor, matrix: Matrix) -> Tensor:
    match matrix.rows.dtype:
        case torch.int8:
            return gemm.linear_w8a16(x, *matrix)
        case torch.uint8:
            return gemm.linear_w4a16(x, *matrix)
        case _:
            return gemm.linear(x, matrix.rows)


def _look_up(embedding: Matrix, tokens: Tensor) -> Tensor:
    rows = embedding.rows.index_select(0, tokens).float()
    return rows.mul_(embedding.scales.index_select(0, tokens)[:, None]) if len(embedding.scales) else rows
