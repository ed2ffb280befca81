"""The seam between the sealed session and whatever generates tokens. Knows nothing of attestation or sealing."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class ChatMessage:
    role: Literal["system", "user", "assistant"]
    content: str = field(repr=False)


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. temperature 0 is greedy; `seed` is always set, by the session if need be."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class GenerationRequest:
    """`prompt` is chat messages (the model's template is applied) or plain text (it is not).

    `cache_salt` is 32 bytes that separate tenants in every cache; `account` serves fairness alone.
    """

    prompt: Sequence[ChatMessage] | str = field(repr=False)
    sampling: Sampling
    cache_salt: bytes = field(repr=False)
    account: str = ""


@dataclass(frozen=True)
class Delta:
    """Text that became certain with one step, and the counts so far. The last delta has a finish reason."""

    text: str = field(repr=False)
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class ModelCard:
    """What the manifest says of the model; readable without loading the weights."""

    name: str
    weights_digest: bytes
    tokenizer_digest: bytes
    context_tokens: int
    engine: Mapping[str, str | int | bool]


class Engine(Protocol):
    """Continuous generation for many requests at once.

    `generate` raises CapacityExceeded or ContextTooLong before its first delta, EngineError at any time;
    closing the generator (aclose) cancels the request within one step and frees what it held.
    """

    @property
    def card(self) -> ModelCard: ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]: ...

    async def close(self) -> None: ...
