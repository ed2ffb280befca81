"""A decoder (llama, qwen2, qwen3) as one forward pass over packed tokens. Calls confide_kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from confide_kernels import activation, attention, gemm, norm, rope
from confide_kernels.attention import Placed, Span, Spans
from confide_kernels.gemm import Product
from torch import Tensor

from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.weights import DecoderWeights, LayerWeights, Matrix


@dataclass(frozen=True)
class Batch:
    """Packed tokens of one step: any mix of chunks and single rows, each sequence's together.

    tokens, positions: [n] int64; rows: the pool's row of each, [n] int64; spans: what each sequence attends to.
    wanted: the packed rows to give logits for, [m] int64.
    """

    tokens: Tensor
    positions: Tensor
    rows: Tensor
    spans: Sequence[Span]
    wanted: Tensor


class States(NamedTuple):
    """What the layers made of the packed rows, float32; `added`: what the last of them still adds."""

    residual: Tensor
    added: Product | None


class Decoder:
    """Weights of scheme w8a8 are computed with exactly, all others in the floats of their own dtype."""

    def __init__(self, weights: DecoderWeights, context_tokens: int) -> None:
        self._weights, self.config = weights, weights.config
        table = rope.table(context_tokens, weights.config.head_dim, weights.config.rope_base)
        self._turns = table.to(weights.embedding.rows.device)

    def forward(self, batch: Batch, pool: KvPool) -> Tensor:
        """Run the packed tokens, write their keys and values; return logits, [wanted, vocabulary] float32."""
        states = self.states(batch.tokens, batch.positions, batch.rows, Spans.of(batch.spans), pool)
        return self.logits(states, batch.wanted)

    def states(
        self, tokens: Tensor, positions: Tensor, rows: Tensor, spans: Spans | Placed, pool: KvPool
    ) -> States:
        """Run the layers. Arguments are those of a batch, but that for a GPU spans may be placed there before."""
        residual = _look_up(self._weights.embedding, tokens)
        if self._weights.exact:
            return States(residual, self._run_exact(residual, positions, rows, spans, pool))
        self._run_float(residual, positions, rows, spans, pool)
        return States(residual, None)

    def logits(self, states: States, wanted: Tensor) -> Tensor:
        weights, (residual, added) = self._weights, states
        residual = residual.index_select(0, wanted)
        if not weights.exact:
            return _multiply(self._norm(residual, weights.norm), weights.head).float()
        last = norm.add_rms_norm_int8(residual, None if added is None else added.rows(wanted), self.config.epsilon)
        return gemm.linear_w8a8(last, *weights.head).floats()

    def _run_exact(
        self, residual: Tensor, positions: Tensor, rows: Tensor, spans: Spans | Placed, pool: KvPool
    ) -> Product | None:
        epsilon = self.config.epsilon
        added: Product | None = None
        for layer, cache in zip(self._weights.layers, pool.layers, strict=True):
            x = norm.add_rms_norm_int8(residual, added, epsilon)
            qkv = gemm.linear_w8a8(x, *layer.qkv)
            heads = rope.Heads(layer.qkv_bias, layer.q_norm, layer.k_norm, epsilon)
            queries, tops = rope.rotate_store(qkv, heads, self._turns, positions, cache, rows)
            added = gemm.linear_w8a8(attention.attend_int8(queries, tops, cache, spans), *layer.output)
            gate_up = gemm.linear_w8a8(norm.add_rms_norm_int8(residual, added, epsilon), *layer.gate_up)
            added = gemm.linear_w8a8(activation.silu_mul_int8(gate_up), *layer.down)
        return added

    def _run_float(
        self, residual: Tensor, positions: Tensor, rows: Tensor, spans: Spans | Placed, pool: KvPool
    ) -> None:
        for layer, cache in zip(self._weights.layers, pool.layers, strict=True):
            x = self._norm(residual, layer.attn_norm)
            residual.add_(self._attend(x, layer, positions, rows, spans, cache.data))
            gate_up = _multiply(self._norm(residual, layer.ffn_norm), layer.gate_up)
            residual.add_(_multiply(activation.silu_mul(gate_up), layer.down))

    def _attend(
        self, x: Tensor, layer: LayerWeights, positions: Tensor, rows: Tensor, spans: Spans | Placed, cache: Tensor
    ) -> Tensor:
        heads = rope.Heads(layer.qkv_bias, layer.q_norm, layer.k_norm, self.config.epsilon)
        qkv = _multiply(x, layer.qkv)
        queries = rope.rotate_store_floats(qkv, heads, self._turns, positions, cache, rows)
        return _multiply(attention.attend(queries, cache[0], cache[1], spans).flatten(1), layer.output)

    def _norm(self, residual: Tensor, weight: Tensor | None) -> Tensor:
        return norm.rms_norm(residual, weight, self.config.epsilon, self._weights.dtype)


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
