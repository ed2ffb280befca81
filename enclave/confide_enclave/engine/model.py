"""The llama decoder as one forward pass over packed tokens. Calls confide_kernels, and decides nothing."""

from dataclasses import dataclass

import torch
from confide_kernels import activation, attention, gemm, norm, rope
from torch import Tensor

from confide_enclave.engine.blocks import KvCache
from confide_enclave.engine.weights import LayerWeights, LlamaWeights


@dataclass(frozen=True)
class Batch:
    """Packed tokens of one step: first `chunk` rows of one prompt, then one row each of decoding sequences.

    tokens, positions, blocks: [n] int64; the decoding rows' blocks ascend. `wanted`: rows to give logits for.
    """

    tokens: Tensor
    positions: Tensor
    blocks: Tensor
    chunk: int
    wanted: Tensor


class Llama:
    def __init__(self, weights: LlamaWeights, context_tokens: int) -> None:
        config = weights.config
        self._weights, self._config = weights, config
        self._turns = rope.table(context_tokens, config.head_dim, config.rope_base)
        self._dtype = weights.embedding.dtype

    def forward(self, batch: Batch, cache: KvCache) -> Tensor:
        """Run the packed tokens, write their keys and values; return logits, [wanted, vocabulary] float32."""
        weights, epsilon, dtype = self._weights, self._config.epsilon, self._dtype
        turns = self._turns[batch.positions]
        residual = weights.embedding[batch.tokens].float()
        delta = torch.zeros((), dtype=dtype)
        for number, layer in enumerate(weights.layers):
            x = norm.add_rms_norm(delta, residual, layer.attention_norm, epsilon, dtype)
            x = self._attend(x, number, layer, turns, batch, cache)
            x = norm.add_rms_norm(x, residual, layer.feed_norm, epsilon, dtype)
            delta = gemm.linear(activation.silu_mul(gemm.linear(x, layer.gate_up)), layer.down)
        last = residual.add_(delta)[batch.wanted]
        return gemm.linear(norm.rms_norm(last, weights.norm, epsilon, dtype), weights.head).float()

    def _attend(
        self, x: Tensor, number: int, layer: LayerWeights, turns: Tensor, batch: Batch, cache: KvCache
    ) -> Tensor:
        heads, kv_heads, chunk = self._config.heads, self._config.kv_heads, batch.chunk
        qkv = gemm.linear(x, layer.qkv).view(len(x), heads + 2 * kv_heads, self._config.head_dim)
        turned = rope.rotate(qkv[:, : heads + kv_heads], turns)
        q = turned[:, :heads]
        cache.store(number, batch.blocks, batch.positions, turned[:, heads:], qkv[:, heads + kv_heads :])
        keys, values = cache.keys[number], cache.values[number]
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        if chunk:
            block, length = int(batch.blocks[0]), int(batch.positions[chunk - 1]) + 1
            out[:chunk] = attention.prefill(q[:chunk], keys[block, :, :length], values[block, :, :length])
        if chunk < len(x):
            lengths = batch.positions[chunk:] + 1
            out[chunk:] = attention.decode(q[chunk:].contiguous(), keys, values, batch.blocks[chunk:], lengths)
        return gemm.linear(out.flatten(1), layer.output)
