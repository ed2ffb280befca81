"""The forward pass against an independent float64 llama, written here straight from the file's own layout."""

import numpy as np
import pytest
import torch
from confide_enclave.engine.blocks import KvCache
from confide_enclave.engine.gguf import parse_gguf
from confide_enclave.engine.model import Batch, Llama
from confide_enclave.engine.weights import load_weights

from tests.fakes import gguf as fake

HEAD_DIM = fake.WIDTH // fake.HEADS


def oracle(tensors: dict, ids: list[int]) -> np.ndarray:
    """Logits of every position, [n, vocabulary]: no cache, no batch; rope on neighbouring pairs as in GGUF."""
    weights = {name: fake.quantise(*tensor)[1] for name, tensor in tensors.items()}
    n = len(ids)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weights[name]

    def rope(x: np.ndarray) -> np.ndarray:
        angle = np.arange(n)[:, None] * 1e4 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)[:, None]
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

    x = weights["token_embd.weight"][ids]
    for layer in range(fake.LAYERS):
        part = f"blk.{layer}.{{}}.weight".format
        h = norm(x, part("attn_norm"))
        q = rope((h @ weights[part("attn_q")].T).reshape(n, fake.HEADS, HEAD_DIM))
        k = rope((h @ weights[part("attn_k")].T).reshape(n, fake.KV_HEADS, HEAD_DIM))
        v = (h @ weights[part("attn_v")].T).reshape(n, fake.KV_HEADS, HEAD_DIM)
        out = np.zeros_like(q)
        for head in range(fake.HEADS):
            shared = head // (fake.HEADS // fake.KV_HEADS)
            scores = q[:, head] @ k[:, shared].T / np.sqrt(HEAD_DIM)
            scores[np.triu_indices(n, 1)] = -np.inf
            shares = np.exp(scores - scores.max(1, keepdims=True))
            out[:, head] = shares / shares.sum(1, keepdims=True) @ v[:, shared]
        x = x + out.reshape(n, -1) @ weights[part("attn_output")].T
        h = norm(x, part("ffn_norm"))
        gate = h @ weights[part("ffn_gate")].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ weights[part("ffn_up")].T)) @ weights[part("ffn_down")].T
    return norm(x, "output_norm.weight") @ weights.get("output.weight", weights["token_embd.weight"]).T


def load(tensors: dict, dtype: torch.dtype = torch.float32) -> tuple[Llama, KvCache]:
    weights = load_weights(parse_gguf(fake.write(fake.toy_metadata(), tensors), "toy"), dtype)
    cache = KvCache(fake.LAYERS, 5, fake.KV_HEADS, 64, HEAD_DIM, dtype)
    return Llama(weights, 64), cache


def batch(*rows: tuple[int, int, int], chunk: int = 0) -> Batch:
    """Rows of (token, position, block), all of them wanted."""
    tokens, positions, blocks = (torch.tensor(column) for column in zip(*rows, strict=True))
    return Batch(tokens, positions, blocks, chunk, torch.arange(len(rows)))


def read(model: Llama, cache: KvCache, ids: list[int], block: int, chunk: int) -> np.ndarray:
    """Read a prompt in chunks; return the logits of every position."""
    out = []
    for start in range(0, len(ids), chunk):
        rows = [(token, start + i, block) for i, token in enumerate(ids[start : start + chunk])]
        out.append(model.forward(batch(*rows, chunk=len(rows)), cache).numpy())
    return np.concatenate(out)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_prompt_logits(tied: bool, chunk: int) -> None:
    """Whatever the chunks, the logits are the oracle's."""
    tensors = fake.toy_tensors(1, tied)
    ids = np.random.default_rng(2).integers(0, 262, 23).tolist()
    model, cache = load(tensors)
    np.testing.assert_allclose(read(model, cache, ids, 2, chunk), oracle(tensors, ids), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("blocks", [(0, 1, 2), (1, 3, 4)])
def test_mixed_step_logits(blocks: tuple[int, int, int]) -> None:
    """A step with a chunk of one prompt and single rows of others gives each what it would have had alone."""
    tensors, rng = fake.toy_tensors(3), np.random.default_rng(4)
    first, second, prompt = (rng.integers(0, 262, n).tolist() for n in (9, 31, 14))
    model, cache = load(tensors)
    read(model, cache, first[:-1], blocks[0], 64)
    read(model, cache, second[:-1], blocks[1], 64)
    read(model, cache, prompt[:6], blocks[2], 64)
    rows = [(token, 6 + i, blocks[2]) for i, token in enumerate(prompt[6:])]
    rows += [(first[-1], 8, blocks[0]), (second[-1], 30, blocks[1])]
    logits = model.forward(batch(*rows, chunk=8), cache).numpy()
    expected = [*oracle(tensors, prompt)[6:], oracle(tensors, first)[-1], oracle(tensors, second)[-1]]
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_bfloat16_stays_close() -> None:
    """In bfloat16 the logits differ by rounding, not by kind."""
    tensors = fake.toy_tensors(1)
    ids = np.random.default_rng(2).integers(0, 262, 23).tolist()
    model, cache = load(tensors, torch.bfloat16)
    out, expected = read(model, cache, ids, 0, 64), oracle(tensors, ids)
    assert np.abs(out - expected).mean() < 0.02 * np.abs(expected).mean() + 0.05
