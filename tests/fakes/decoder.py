"""Toy decoders of each family, an independent float64 definition of them, and steps to run them with."""

from collections.abc import Sequence

import numpy as np
import torch
from confide_enclave.engine.blocks import KvPool, context_rows
from confide_enclave.engine.convert import convert
from confide_enclave.engine.gguf import parse_gguf
from confide_enclave.engine.model import Batch, Decoder
from confide_enclave.engine.package import Model
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.weights import load_weights
from confide_kernels.attention import Span

from tests.fakes import gguf as fake

HEAD_DIM = fake.WIDTH // fake.HEADS
VOCABULARY = len(fake.toy_metadata()["tokenizer.ggml.tokens"])


def metadata(family: str = "llama") -> dict:
    return {
        key.replace("llama.", f"{family}."): family if key == "general.architecture" else value
        for key, value in fake.toy_metadata().items()
    }


def tensors(seed: int = 0, family: str = "llama", tied: bool = True) -> dict:
    """Add what each family has beyond llama."""
    rng, added = np.random.default_rng(seed + 1000), {}
    for layer in range(fake.LAYERS):
        part = f"blk.{layer}.{{}}".format
        if family == "qwen2":
            for name, heads in (("attn_q", fake.HEADS), ("attn_k", fake.KV_HEADS), ("attn_v", fake.KV_HEADS)):
                added[part(f"{name}.bias")] = (rng.normal(0, 1, heads * HEAD_DIM).astype(np.float32), "F32")
        if family == "qwen3":
            for name in ("attn_q_norm", "attn_k_norm"):
                added[part(f"{name}.weight")] = (rng.uniform(0.5, 1.5, HEAD_DIM).astype(np.float32), "F32")
    return fake.toy_tensors(seed, tied) | added


def oracle(tensors: dict, ids: list[int], family: str = "llama") -> np.ndarray:
    """Logits of every position, [n, vocabulary]: no cache, no batch; rope as the family's files lay it out."""
    weights = {name: fake.quantise(*tensor)[1] for name, tensor in tensors.items()}
    n = len(ids)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weights[name]

    def rope(x: np.ndarray) -> np.ndarray:
        angle = np.arange(n)[:, None] * 1e4 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        turn = np.exp(1j * angle)[:, None]
        if family == "llama":
            turned = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
            return np.stack([turned.real, turned.imag], -1).reshape(x.shape)
        turned = (x[..., : HEAD_DIM // 2] + 1j * x[..., HEAD_DIM // 2 :]) * turn
        return np.concatenate([turned.real, turned.imag], -1)

    x = weights["token_embd.weight"][ids]
    for layer in range(fake.LAYERS):
        part = f"blk.{layer}.{{}}".format
        h = norm(x, part("attn_norm.weight"))

        def project(name: str, heads: int, h: np.ndarray = h, part=part) -> np.ndarray:
            y = h @ weights[part(f"{name}.weight")].T + weights.get(part(f"{name}.bias"), 0)
            y = y.reshape(n, heads, HEAD_DIM)
            return norm(y, part(f"{name}_norm.weight")) if part(f"{name}_norm.weight") in weights else y

        q, k = rope(project("attn_q", fake.HEADS)), rope(project("attn_k", fake.KV_HEADS))
        v = project("attn_v", fake.KV_HEADS)
        out = np.zeros_like(q)
        for head in range(fake.HEADS):
            shared = head // (fake.HEADS // fake.KV_HEADS)
            scores = q[:, head] @ k[:, shared].T / np.sqrt(HEAD_DIM)
            scores[np.triu_indices(n, 1)] = -np.inf
            shares = np.exp(scores - scores.max(1, keepdims=True))
            out[:, head] = shares / shares.sum(1, keepdims=True) @ v[:, shared]
        x = x + out.reshape(n, -1) @ weights[part("attn_output.weight")].T
        h = norm(x, part("ffn_norm.weight"))
        gate, up = (h @ weights[part(f"ffn_{half}.weight")].T for half in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[part("ffn_down.weight")].T
    return norm(x, "output_norm.weight") @ weights.get("output.weight", weights["token_embd.weight"]).T


def model(tensors: dict, scheme: str, family: str = "llama") -> Model:
    """Convert in memory."""
    gguf = parse_gguf(fake.write(metadata(family), tensors), "toy.gguf")
    return Model(gguf, dict(convert(gguf, scheme)), scheme, bytes(32), bytes(32))


class Machine:
    """A decoder and a pool; `step` runs any mix of parts of sequences and gives the logits of every row."""

    def __init__(
        self,
        tensors: dict,
        *,
        scheme: str = "w8a8",
        family: str = "llama",
        pages: int = 40,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        weights = load_weights(model(tensors, scheme, family), dtype, self._device)
        self.decoder = Decoder(weights, fake.CONTEXT)
        self.pool = KvPool.of(weights, pages)

    @torch.inference_mode()
    def step(self, *parts: tuple[Sequence[int], int, Sequence[int]]) -> torch.Tensor:
        """Each part: ids, the position of the first of them, and the sequence's pages."""
        tokens, positions, rows, spans = [], [], [], []
        for ids, start, pages in parts:
            end = start + len(ids)
            spans.append(Span(len(tokens), len(ids), end, context_rows(pages, end)))
            tokens += ids
            positions += range(start, end)
            rows += (pages[p // PAGE_TOKENS] * PAGE_TOKENS + p % PAGE_TOKENS for p in range(start, end))
        columns = (torch.tensor(column, device=self._device) for column in (tokens, positions, rows))
        wanted = torch.arange(len(tokens), device=self._device)
        return self.decoder.forward(Batch(*columns, spans, wanted), self.pool).cpu()

    def read(self, ids: Sequence[int], pages: Sequence[int], chunk: int = 256) -> torch.Tensor:
        """Read a prompt in chunks; return the logits of every position."""
        starts = range(0, len(ids), chunk)
        return torch.cat([self.step((ids[start : start + chunk], start, pages)) for start in starts])
