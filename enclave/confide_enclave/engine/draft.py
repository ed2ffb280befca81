"""Guesses by a smaller decoder: some layers of the model itself, or a draft model with the same tokenizer.

It guesses its own likeliest tokens, from a cache of its own, until it is unsure. What it guesses changes no answer
(see `speculate`), so neither its numbers nor its weights need to be exact, nor are they part of the model's digest.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Final

import torch
from confide_kernels.attention import Span
from confide_protocol.errors import ConfigError
from torch import Tensor

from confide_enclave.engine.blocks import KvPool, context_rows
from confide_enclave.engine.card import EngineLimits, choose_dtype
from confide_enclave.engine.model import Batch, Decoder
from confide_enclave.engine.package import Model, open_model
from confide_enclave.engine.pages import Pages, pages_for
from confide_enclave.engine.speculate import Proposer
from confide_enclave.engine.weights import DecoderWeights, load_weights

_CHUNK: Final = 256
# A guess that the draft itself holds for less likely is not worth a row.
_SURE: Final = 0.4


class Draft:
    """A decoder and the cache that its proposers share. Used by the model thread alone."""

    def __init__(self, weights: DecoderWeights, limits: EngineLimits, pages: int) -> None:
        self.model = Decoder(weights, limits.context_tokens)
        self.pool = KvPool.of(weights, pages)
        self.pages = Pages(pages, self.pool.wipe)
        self.readers = 0


class DraftProposer(Proposer):
    """One sequence's guesses by a draft."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._ids: list[int] = []
        self._held: list[int] = []
        self._pages: list[int] = []

    @torch.inference_mode()
    def propose(self, new: Sequence[int], most: int) -> list[int]:
        self._ids += new
        # What the last guesses left in the cache stays as far as they came true.
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._held, self._ids, strict=False)))
        del self._held[min(same, len(self._ids) - 1) :]
        guesses: list[int] = []
        # Each guess is a step of its own, which others wait for.
        most //= max(1, self._draft.readers)
        while len(guesses) < most:
            logits = self._read((self._ids + guesses)[len(self._held) :])
            if logits is None:
                break
            best = torch.softmax(logits, -1).max(-1)
            if best.values < _SURE:
                break
            guesses.append(int(best.indices))
        return guesses

    def close(self) -> None:
        self._draft.pages.release(self._pages)
        self._draft.readers -= bool(self._pages)
        self._ids, self._held, self._pages = [], [], []

    def _read(self, ids: list[int]) -> Tensor | None:
        """Read ids after those that are held; return the logits of the last, or None for want of pages."""
        missing = pages_for(len(self._held) + len(ids)) - len(self._pages)
        if missing > self._draft.pages.free:
            return None
        self._draft.readers += not self._pages
        if missing > 0:
            self._pages += self._draft.pages.take(missing, after=self._pages[-1] if self._pages else -1)
        logits: Tensor | None = None
        for first in range(0, len(ids), _CHUNK):
            logits = self._step(ids[first : first + _CHUNK])
        return logits

    def _step(self, ids: list[int]) -> Tensor:
        start = len(self._held)
        self._held += ids
        rows = context_rows(self._pages, len(self._held))
        new = torch.arange(rows.start + start, rows.stop) if isinstance(rows, slice) else rows[start:]
        spans = [Span(0, len(ids), len(self._held), rows)]
        positions = torch.arange(start, len(self._held))
        batch = Batch(torch.tensor(ids), positions, new, spans, torch.tensor([len(ids) - 1]))
        return self._draft.model.forward(batch, self._draft.pool)[0]


def skip_layers(weights: DecoderWeights, kept: Sequence[int]) -> DecoderWeights:
    """Return a decoder of some of the layers, sharing their weights. Raises: ConfigError."""
    if not kept or list(kept) != sorted(set(kept) & set(range(weights.config.layers))):
        raise ConfigError("engine", "draft_layers", f"must be ascending and under {weights.config.layers}")
    layers = tuple(weights.layers[number] for number in kept)
    return replace(weights, config=replace(weights.config, layers=len(layers)), layers=layers)


def load_draft(model: Model, weights: DecoderWeights, limits: EngineLimits, pages: int) -> Draft | None:
    """Return the draft that the settings name for a model, if they name one. Raises: ConfigError."""
    if limits.speculate == "layers":
        return Draft(skip_layers(weights, limits.draft_layers), limits, pages)
    if limits.speculate != "draft" or limits.draft is None:
        return None
    path = Path(limits.draft)
    found = open_model(path, limits.scheme)
    if found.metadata.digest("tokenizer.") != model.metadata.digest("tokenizer."):
        raise ConfigError(str(path), "tokenizer", "is not the model's; a draft needs the same tokenizer")
    draft = load_weights(found, getattr(torch, choose_dtype(limits)), take=True)
    if draft.config.vocabulary != weights.config.vocabulary:
        raise ConfigError(str(path), "vocabulary", "is not of the model's size")
    return Draft(draft, limits, pages)
