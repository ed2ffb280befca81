"""What quantising a model costs and gives: bytes, perplexity, agreement with float32, and speed, side by side."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from confide_kernels.attention import Span
from torch import Tensor

from confide_enclave.engine.blocks import KvPool
from confide_enclave.engine.card import EngineLimits, choose_dtype
from confide_enclave.engine.convert import Scheme
from confide_enclave.engine.model import Batch, Decoder
from confide_enclave.engine.package import Model
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.weights import load_weights

# Lewis Carroll's Alice's Adventures in Wonderland, chapters I and II: in the public domain.
SAMPLE: Final = Path(__file__).parent / "alice.txt"
WINDOW_TOKENS: Final = 512
CONTEXT_TOKENS: Final = 128
BATCHES: Final = (1, 8)
# What a scheme is for: exact mode where it can, else fast.
MODES: Final[Mapping[Scheme, Literal["exact", "fast"]]] = {
    "w8a8": "exact", "w8a16": "fast", "w4a16": "fast", "none": "fast",
}  # fmt: skip


@dataclass(frozen=True)
class Quality:
    """Of text that the model is told as it goes: perplexity, and the likeliest token at each position."""

    perplexity: float
    likeliest: Tensor

    def agreement(self, other: "Quality") -> float:
        """Return at which share of the positions both find the same token likeliest."""
        return float((self.likeliest == other.likeliest).double().mean())


class Subject:
    """A decoder with a cache of its own, to be measured by itself: no scheduler, no sampling, no text."""

    def __init__(self, model: Model, dtype: torch.dtype) -> None:
        """`dtype` is what all schemes but w8a8 compute in. Raises: ConfigError."""
        weights = load_weights(model, dtype)
        pages = -(-max(WINDOW_TOKENS, max(BATCHES) * _row_tokens()) // PAGE_TOKENS)
        self._decoder = Decoder(weights, WINDOW_TOKENS)
        self._window = min(WINDOW_TOKENS, weights.config.context_tokens)
        self._pool = KvPool.of(weights, pages)
        self._vocabulary = weights.config.vocabulary
        self.weight_bytes = sum(array.nbytes for array in model.arrays.values())

    @torch.inference_mode()
    def quality(self, ids: Sequence[int]) -> Quality:
        """Read the text in windows, each without what was before it; a rest shorter than a window is left out.

        A window has WINDOW_TOKENS, or as many as the model's context. ids: at least one window.
        """
        told, likeliest = torch.zeros((), dtype=torch.float64), []
        positions = torch.arange(self._window)
        span = Span(0, self._window, self._window, slice(0, self._window))
        for window in torch.tensor(ids[: len(ids) // self._window * self._window]).view(-1, self._window):
            logits = self._decoder.forward(Batch(window, positions, positions, [span], positions[:-1]), self._pool)
            told += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").double()
            likeliest.append(logits.argmax(-1))
        found = torch.cat(likeliest)
        return Quality(float((told / len(found)).exp()), found)

    @torch.inference_mode()
    def decode_s(self, sequences: int, steps: int) -> float:
        """Return the least time of one step that gives each of `sequences` a token, after CONTEXT_TOKENS."""
        least, apart = float("inf"), _row_tokens()
        for step in range(steps):
            position = CONTEXT_TOKENS + step % (apart - CONTEXT_TOKENS)
            starts = range(0, sequences * apart, apart)
            spans = [Span(i, 1, position + 1, slice(start, start + position + 1)) for i, start in enumerate(starts)]
            batch = Batch(
                tokens=torch.arange(step, step + sequences) % self._vocabulary,
                positions=torch.full((sequences,), position),
                rows=torch.tensor([start + position for start in starts]),
                spans=spans,
                wanted=torch.arange(sequences),
            )
            began = time.perf_counter()
            self._decoder.forward(batch, self._pool).argmax(-1)
            least = min(least, time.perf_counter() - began)
        return least


@dataclass(frozen=True)
class Figures:
    """One scheme's row of the table."""

    scheme: str
    mode: str
    weight_bytes: int
    perplexity: float
    agreement: float
    decode_per_s: Mapping[int, float]


def compare(models: Mapping[Scheme, Model], reference: Model, ids: Sequence[int], rounds: int) -> list[Figures]:
    """Measure the models beside `reference`, which is in float32 and the table's first row.

    ids: at least WINDOW_TOKENS. Speeds are the best of `rounds` that take turns, by how many sequences at once.
    """
    dtype = getattr(torch, choose_dtype(EngineLimits(mode="fast", scheme="w8a16")))
    subjects = {scheme: Subject(model, dtype) for scheme, model in models.items()}
    subjects = {"none": Subject(reference, torch.float32), **subjects}
    qualities = {scheme: subject.quality(ids) for scheme, subject in subjects.items()}
    least: dict[tuple[Scheme, int], float] = {}
    for _ in range(rounds):
        for scheme, subject in subjects.items():
            for count in BATCHES:
                taken = subject.decode_s(count, steps=4)
                least[scheme, count] = min(least.get((scheme, count), taken), taken)
    return [
        Figures(
            scheme=scheme if scheme != "none" else "float32",
            mode=MODES[scheme],
            weight_bytes=subject.weight_bytes,
            perplexity=qualities[scheme].perplexity,
            agreement=qualities[scheme].agreement(qualities["none"]),
            decode_per_s={count: count / least[scheme, count] for count in BATCHES},
        )
        for scheme, subject in subjects.items()
    ]


def _row_tokens() -> int:
    """Return how many rows of the cache a sequence has in `decode_s`."""
    return CONTEXT_TOKENS + PAGE_TOKENS
