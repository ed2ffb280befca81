"""A decoder (llama, qwen2, qwen3) as one forward pass over packed tokens. Calls confide_kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from confide_kernels import activation, attention, gemm, norm, quant, rope
from confide_kernels.attention import Span
from torch import Tensor

from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.weights import DecoderWeights, LayerWeights, Matrix

# Rows on their way into a matrix product: float, or int8 levels and what one level is.
Rows = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Batch:
    """Packed tokens of one step: any mix of chunks and single rows, each sequence's together.

    tokens, positions: [n] int64; rows: the pool's row of each; spans: what each sequence attends to; wanted: the
    packed rows to give logits for, [m] int64.
    """

    tokens: Tensor
    positions: Tensor
    rows: slice | Tensor
    spans: Sequence[Span]
    wanted: Tensor


class Decoder:
    """`dtype` is that of the rows which meet the weights: int8 for w8a8, else a float."""

    def __init__(
        self, weights: DecoderWeights, context_tokens: int, mode: Literal["exact", "fast"], dtype: torch.dtype
    ) -> None:
        config = weights.config
        self._weights, self._config, self._exact, self._dtype = weights, config, mode == "exact", dtype
        self._turns = rope.table(context_tokens, config.head_dim, config.rope_base)
        self._ones = torch.ones(config.width)

    def forward(self, batch: Batch, pool: KvPool) -> Tensor:
        """Run the packed tokens, write their keys and values; return logits, [wanted, vocabulary] float32."""
        weights = self._weights
        turns = self._turns.index_select(0, batch.positions)
        residual = _look_up(weights.embedding, batch.tokens)
        for number, layer in enumerate(weights.layers):
            x = self._norm(residual)
            residual.add_(self._attend(x, number, layer, turns, batch, pool))
            gate_up = self._multiply(self._norm(residual), layer.gate_up)
            gated = activation.silu_mul_exact(gate_up) if self._exact else activation.silu_mul(gate_up)
            residual.add_(self._multiply(self._rows(gated), layer.down))
        last = residual.index_select(0, batch.wanted)
        return self._multiply(self._norm(last, weights.norm), weights.head).float()

    def _attend(
        self, x: Rows, number: int, layer: LayerWeights, turns: Tensor, batch: Batch, pool: KvPool
    ) -> Tensor:
        config = self._config
        qkv = self._multiply(x, layer.qkv).float()
        if layer.qkv_bias is not None:
            qkv.add_(layer.qkv_bias)
        heads, turned = config.heads, config.heads + config.kv_heads
        qkv = qkv.view(len(qkv), heads + 2 * config.kv_heads, config.head_dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            qkv[:, :heads] = norm.head_norm_exact(qkv[:, :heads], layer.q_norm, config.epsilon)
            qkv[:, heads:turned] = norm.head_norm_exact(qkv[:, heads:turned], layer.k_norm, config.epsilon)
        rope.rotate(qkv[:, :turned], turns)
        if self._exact:
            levels, tops, _ = quant.to_levels(qkv)
            tops = tops.squeeze(-1)
            kept = pool.store(number, batch.rows, levels[:, heads:], tops[:, heads:])
            out = attention.attend_int8(levels[:, :heads], tops[:, :heads], *kept, batch.spans)
        else:
            keys, values, *_ = pool.store(number, batch.rows, qkv[:, heads:], None)
            out = attention.attend(qkv[:, :heads].to(keys.dtype), keys, values, batch.spans).flatten(1).float()
        return self._multiply(self._rows(out), layer.output)

    def _norm(self, residual: Tensor, weight: Tensor | None = None) -> Rows:
        if self._dtype == torch.int8:
            return norm.rms_norm_int8(residual, self._config.epsilon, weight)
        return norm.rms_norm(
            residual, self._ones if weight is None else weight, self._config.epsilon, self._dtype
        ), None

    def _rows(self, x: Tensor) -> Rows:
        return quant.quantise(x) if self._dtype == torch.int8 else (x.to(self._dtype), None)

    @staticmethod
    def _multiply(rows: Rows, matrix: Matrix) -> Tensor:
        x, scales = rows
        if scales is not None:
            return gemm.linear_w8a8(x, scales, matrix.rows, matrix.scales)
        match matrix.rows.dtype:
            case torch.int8:
                return gemm.linear_w8a16(x, matrix.rows, matrix.scales)
            case torch.uint8:
                return gemm.linear_w4a16(x, matrix.rows, matrix.scales)
            case _:
                return gemm.linear(x, matrix.rows)


def _look_up(embedding: Matrix, tokens: Tensor) -> Tensor:
    rows = embedding.rows.index_select(0, tokens).float()
    return rows.mul_(embedding.scales.index_select(0, tokens)[:, None]) if len(embedding.scales) else rows
