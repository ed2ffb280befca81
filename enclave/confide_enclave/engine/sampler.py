"""The next token of each sequence, from a generator without state: only (seed, position) decide the draw."""

import hashlib
import struct
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import NamedTuple, Protocol

import torch
from confide_kernels import sampling
from confide_protocol.errors import EngineError
from torch import Tensor

from confide_enclave.engine import Sampling
from confide_enclave.engine.grammar import Matcher


class Row(Protocol):
    """One row of logits: what was asked for, and the ids that it follows on."""

    @property
    def prompt(self) -> list[int]: ...

    @property
    def generated(self) -> list[int]: ...

    @property
    def sampling(self) -> Sampling: ...

    @property
    def grammar(self) -> Matcher | None: ...


Send = Callable[[Tensor], Tensor]


class Drawn(NamedTuple):
    """A token; where asked for, its log-probability by the model alone and those of the likeliest, best first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def uniform(seed: int, position: int) -> float:
    """Return 53 bits of SHA-256(seed, position) as a float in [0, 1). The seed counts modulo 2^64."""
    digest = hashlib.sha256(struct.pack("<QQ", seed % 2**64, position)).digest()
    return (int.from_bytes(digest[:8], "little") >> 11) * 2.0**-53


def draw(logits: Tensor, rows: Items[Row]) -> list[Drawn | None]:
    """Return what is drawn from each row of logits; None where one is not finite, or nothing may come next.

    A token's position counts from the start of the answer. Penalties and bias come first, then the grammar, then
    temperature and filters.
    """
    ends = torch.stack(torch.aminmax(logits, dim=-1))  # not a number where any is not
    finite = torch.isfinite(ends).all(0).tolist()
    ready = logits
    if not all(finite) or any(_shifted(row) for row in rows):
        ready = torch.where(torch.tensor(finite)[:, None], logits, 0)
        for number, row in enumerate(rows):
            if finite[number] and _shifted(row):
                prepared = _prepare(ready[number], row)
                finite[number] = bool(-torch.inf < prepared.max() < torch.inf)
                ready[number] = prepared if finite[number] else 0
    ids = sampling.sample(
        ready,
        _numbers([row.sampling.temperature for row in rows]),
        torch.tensor([row.sampling.top_k for row in rows], dtype=torch.int64),
        _numbers([row.sampling.top_p for row in rows]),
        _numbers([row.sampling.min_p for row in rows]),
        _numbers([uniform(row.sampling.seed, len(row.generated)) for row in rows]),
    )
    parts = zip(logits, ids.tolist(), finite, rows, strict=True)
    return [explain(row, token, own) if good else None for row, token, good, own in parts]


def choose(logits: Tensor, rows: Items[Row], send: Send) -> Tensor:
    """Return the ids that `draw` would draw, -1 for none, where the logits are: a GPU, for which nothing waits.

    send: returns there, in stream order, what is given to it on the CPU.
    """
    finite = torch.isfinite(torch.stack(torch.aminmax(logits, dim=-1))).all(0)
    if any(_shifted(row) for row in rows):
        logits = torch.stack(
            [_prepare(own, row, send) if _shifted(row) else own for own, row in zip(logits, rows, strict=True)]
        )
    asked = [row.sampling for row in rows]
    numbers = _numbers(
        [
            *(each.temperature for each in asked),
            *(each.top_p for each in asked),
            *(each.min_p for each in asked),
            *(uniform(each.seed, len(row.generated)) for each, row in zip(asked, rows, strict=True)),
            *(each.top_k for each in asked),
        ]
    )
    temperatures, top_ps, min_ps, uniforms, top_ks = send(numbers).view(5, -1)
    cuts, nucleus = any(each.top_k for each in asked), any(each.top_p < 1 for each in asked)
    ids = sampling.sample(logits, temperatures, top_ks.long(), top_ps, min_ps, uniforms, cuts=cuts, nucleus=nucleus)
    return torch.where(finite, ids, -1)


def explain(logits: Tensor, token: int, row: Row) -> Drawn:
    """Say what was drawn from one row of logits. A GPU is waited for where the request wants probabilities."""
    count = row.sampling.logprobs
    if count is None:
        return Drawn(token)
    values, best = sampling.log_probabilities(logits, count)
    return Drawn(token, float(values[token]), tuple((each, float(values[each])) for each in best.tolist()))


def _shifted(row: Row) -> bool:
    asked = row.sampling
    penalties = asked.frequency_penalty or asked.presence_penalty or asked.repetition_penalty != 1
    return bool(penalties or asked.logit_bias or row.grammar is not None)


def _stay(x: Tensor) -> Tensor:
    return x


def _prepare(logits: Tensor, row: Row, send: Send = _stay) -> Tensor:
    asked = row.sampling
    shifts: dict[int, float] = {}
    if asked.frequency_penalty or asked.presence_penalty:
        for token, count in Counter(row.generated).items():
            shifts[token] = -(asked.frequency_penalty * count + asked.presence_penalty)
    for token, bias in asked.logit_bias:
        if token < len(logits):
            shifts[token] = shifts.get(token, 0.0) + bias
    repeated = {*row.prompt, *row.generated} if asked.repetition_penalty != 1 else set()
    if ids := sorted(shifts.keys() | repeated):
        factors = [asked.repetition_penalty if token in repeated else 1.0 for token in ids]
        shift = [shifts.get(token, 0.0) for token in ids]
        logits = sampling.adjust(
            logits,
            send(torch.tensor(ids)),
            send(_numbers(factors)),
            send(_numbers(shift)),
        )
    if row.grammar is not None:
        try:
            mask = row.grammar.mask()
        except EngineError:
            mask = b""  # nothing may come: this row alone fails
        allowed = torch.frombuffer(bytearray(mask or b"\0"), dtype=torch.uint8)
        logits = sampling.forbid(logits, send(allowed))
    return logits


def _numbers(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
