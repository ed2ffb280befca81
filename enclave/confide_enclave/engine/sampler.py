"""The next token of each sequence, from a generator without state: only (seed, position) decide the draw."""

import hashlib
import struct
from collections.abc import Sequence as Items

import torch
from confide_kernels import sampling
from torch import Tensor

from confide_enclave.engine.sequence import Sequence


def uniform(seed: int, position: int) -> float:
    """Return 53 bits of SHA-256(seed, position) as a float in [0, 1). The seed counts modulo 2^64."""
    digest = hashlib.sha256(struct.pack("<QQ", seed % 2**64, position)).digest()
    return (int.from_bytes(digest[:8], "little") >> 11) * 2.0**-53


def draw(logits: Tensor, sequences: Items[Sequence]) -> list[int | None]:
    """Return one token id per row of logits; None where a row is not finite.

    A token's position counts from the start of the answer.
    """
    finite = torch.isfinite(logits.sum(-1, dtype=torch.float64))
    ids = sampling.sample(
        torch.where(finite[:, None], logits, 0),
        torch.tensor([sequence.sampling.temperature for sequence in sequences], dtype=torch.float64),
        torch.tensor([sequence.sampling.top_p for sequence in sequences], dtype=torch.float64),
        torch.tensor([uniform(s.sampling.seed, len(s.generated)) for s in sequences], dtype=torch.float64),
    )
    return [token if good else None for token, good in zip(ids.tolist(), finite.tolist(), strict=True)]
