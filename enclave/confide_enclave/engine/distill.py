"""A small decoder trained to guess what a model says next, for `speculate = "draft"`.

The student starts as some of the model's own layers between its embedding and its head, which stay as they are. It
learns the model's greedy answers to given prompts, each token from those before it. The same prompts, steps and
seed give the same student on the same machine with as many threads.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

import torch
from confide_kernels import rope
from confide_kernels.attention import Span
from confide_protocol.errors import ConfigError
from torch import Tensor
from torch.nn import functional

from confide_enclave.engine import ChatMessage, Sampling
from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.config import architecture, read_config
from confide_enclave.engine.gguf import F32, Gguf, TensorInfo
from confide_enclave.engine.model import Batch, Decoder
from confide_enclave.engine.pages import Pages, pages_for
from confide_enclave.engine.prefix import PrefixCache
from confide_enclave.engine.runner import Runner
from confide_enclave.engine.scheduler import Bounds, Scheduler
from confide_enclave.engine.sequence import Sequence as Request
from confide_enclave.engine.sequence import token_limit
from confide_enclave.engine.tokens import TextStream, Tokens
from confide_enclave.engine.weights import DecoderWeights

_RATE: Final = 1e-3
_BATCH: Final = 8
# The head is most of the work: answers use few of its tokens, and some others stand for the rest.
_HEAD_TOKENS: Final = 4_096


@dataclass(frozen=True)
class Answer:
    """A prompt's ids and the answer's; the first `start` are the prompt's."""

    ids: list[int] = field(repr=False)
    start: int


def answer_prompts(weights: DecoderWeights, tokens: Tokens, prompts: Sequence[str], most: int) -> list[Answer]:
    """Answer each prompt greedily with at most so many tokens, in exact mode. Raises: ContextTooLong."""
    limits = EngineLimits()
    pool, count = KvPool.of(weights, limits.pages), limits.max_sequences
    runner = Runner(Decoder(weights, limits.context_tokens), pool)
    pages = Pages(limits.pages, runner.wipe)
    bounds = Bounds(count, limits.prefill_chunk_tokens, limits.pages)
    scheduler = Scheduler(pages, PrefixCache(pages, 0, 0), bounds)
    requests: list[Request] = []
    for text in prompts:
        ids = tokens.encode([ChatMessage("user", text)])
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=most, seed=0)
        limit = token_limit(ids, sampling, limits.context_tokens)
        requests.append(Request(ids, sampling, limit, TextStream(()), deliver=lambda _: None))
        scheduler.add(requests[-1])
    while step := scheduler.next_step():
        for request, drawn in runner.run(step):
            if drawn is None:
                raise ConfigError("model", "weights", "give numbers that are not finite")
            if request.append(drawn, tokens).finish_reason:
                scheduler.remove(request)
    return [Answer(request.ids, len(request.prompt)) for request in requests]


@torch.inference_mode()
def acceptance(draft: DecoderWeights, answers: Sequence[Answer]) -> float:
    """Return for which share of the answers' tokens the draft finds them likeliest, told all before."""
    longest = max(len(answer.ids) for answer in answers)
    decoder, pool = Decoder(draft, longest), KvPool.of(draft, pages_for(longest))
    right = total = 0
    for answer in answers:
        ids = torch.tensor(answer.ids)
        positions = torch.arange(len(ids))
        wanted = torch.arange(answer.start - 1, len(ids) - 1)
        span = Span(0, len(ids), len(ids), slice(0, len(ids)))
        batch = Batch(ids, positions, positions, [span], wanted)
        likeliest = decoder.forward(batch, pool).argmax(-1)
        right += int((likeliest == ids[answer.start :]).sum())
        total += len(wanted)
    return right / total


def train(
    model: Gguf,
    kept: Sequence[int],
    answers: Sequence[Answer],
    *,
    steps: int,
    seed: int,
    report: Callable[[int, float], None],
) -> Gguf:
    """Return the student, as a model of the same family with `kept` layers. `report` gets step and loss."""
    student = _Student(model, kept)
    rng = Random(seed)  # noqa: S311 - an order of training, no secret
    used = {token for answer in answers for token in answer.ids[answer.start :]}
    others = [token for token in range(student.config.vocabulary) if token not in used]
    head = sorted(used.union(rng.sample(others, min(len(others), max(0, _HEAD_TOKENS - len(used))))))
    places = {token: place for place, token in enumerate(head)}
    outputs = student.head[head]
    optimiser = torch.optim.AdamW(student.trained.values(), lr=_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    order: list[Answer] = []
    for step in range(steps):
        if len(order) < _BATCH:
            order += rng.sample(answers, len(answers))
        batch, order = order[:_BATCH], order[_BATCH:]
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 10, (steps - step) / (0.5 * steps))
        said = [places[token] for answer in batch for token in answer.ids[answer.start :]]
        hidden = torch.cat([student.forward(torch.tensor(answer.ids[:-1]))[answer.start - 1 :] for answer in batch])
        loss = functional.cross_entropy(hidden @ outputs.t(), torch.tensor(said))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(student.trained.values(), 1.0)
        optimiser.step()
        report(step + 1, float(loss.detach()))
    return student.as_model()


class _Student:
    """A decoder in float32 that can be trained, on the tensors as GGUF names them."""

    def __init__(self, model: Gguf, kept: Sequence[int]) -> None:
        self._model, self._family = model, architecture(model)
        whole = read_config(model)
        if not kept or list(kept) != sorted(set(kept) & set(range(whole.layers))):
            raise ConfigError(model.file, "layers", f"must be ascending and under {whole.layers}")
        self.config = replace(whole, layers=len(kept))
        self._names: dict[str, str] = {"output_norm.weight": "output_norm.weight"}
        for new, old in enumerate(kept):
            start = f"blk.{old}."
            self._names |= {f"blk.{new}.{n.removeprefix(start)}": n for n in model.tensors if n.startswith(start)}
        self.trained = {
            new: torch.from_numpy(model.array(old)).requires_grad_() for new, old in self._names.items()
        }
        self._embedding = torch.from_numpy(model.array("token_embd.weight"))
        untied = "output.weight" in model.tensors
        self.head = torch.from_numpy(model.array("output.weight")) if untied else self._embedding

    def forward(self, ids: Tensor) -> Tensor:
        """Return what stands before the head at every position, [n, width]."""
        config, x = self.config, self._embedding[ids]
        turns = rope.table(len(ids), config.head_dim, config.rope_base)
        for number in range(config.layers):
            part = {n.removeprefix(f"blk.{number}."): t for n, t in self.trained.items()}
            x = (
                x
                + self._attend(self._norm(x, part["attn_norm.weight"]), part, turns)
                @ part["attn_output.weight"].t()
            )
            h = self._norm(x, part["ffn_norm.weight"])
            gated = functional.silu(h @ part["ffn_gate.weight"].t()) * (h @ part["ffn_up.weight"].t())
            x = x + gated @ part["ffn_down.weight"].t()
        return self._norm(x, self.trained["output_norm.weight"])

    def as_model(self) -> Gguf:
        """Return the student as a model, which `convert` and `write_package` take."""
        key = f"{self._family}.block_count"
        shared = [name for name in ("token_embd.weight", "output.weight") if name in self._model.tensors]
        names = self._names | {name: name for name in shared}
        tensors = {new: replace(self._model.tensors[old], name=new) for new, old in names.items()}

        def read(info: TensorInfo) -> F32:
            if info.name in self.trained:
                return self.trained[info.name].detach().numpy().copy()
            return self._model.array(info.name)

        raw = self._model.metadata_raw
        return Gguf(
            f"{self._model.file}, distilled",
            {**self._model.metadata, key: self.config.layers},
            {**raw, key: raw[key][:-4] + struct.pack("<I", self.config.layers)},
            tensors,
            read,
        )

    def _attend(self, h: Tensor, part: Mapping[str, Tensor], turns: Tensor) -> Tensor:
        config, pairs = self.config, self._family == "llama"
        q, k, v = (self._project(h, part, name) for name in ("attn_q", "attn_k", "attn_v"))
        q, k = (_rotate(each, turns, pairs=pairs).transpose(0, 1) for each in (q, k))
        out = functional.scaled_dot_product_attention(q, k, v.transpose(0, 1), is_causal=True, enable_gqa=True)
        return out.transpose(0, 1).reshape(len(h), config.heads * config.head_dim)

    def _project(self, h: Tensor, part: Mapping[str, Tensor], name: str) -> Tensor:
        y = h @ part[f"{name}.weight"].t()
        if f"{name}.bias" in part:
            y = y + part[f"{name}.bias"]
        y = y.view(len(h), -1, self.config.head_dim)
        return self._norm(y, part[f"{name}_norm.weight"]) if f"{name}_norm.weight" in part else y

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, weight.shape, weight, self.config.epsilon)


def _rotate(x: Tensor, turns: Tensor, *, pairs: bool) -> Tensor:
    """Turn [n, heads, head_dim]. `pairs`: neighbours turn together, as in llama's files, else i and i + d/2 do."""
    if pairs:
        x = x.reshape(*x.shape[:2], -1, 2).transpose(-1, -2).flatten(-2)
    return x * turns[:, None, 0] + x.roll(x.shape[-1] // 2, -1) * turns[:, None, 1]
