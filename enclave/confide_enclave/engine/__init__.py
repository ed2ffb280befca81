"""The seam between the sealed session and whatever generates tokens. Knows nothing of attestation or sealing."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]
Thinking = Literal["no", "tagged", "opened"]
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A call that the model made; `arguments` is its JSON text."""

    id: str = field(repr=False)
    name: str = field(repr=False)
    arguments: str = field(repr=False)


@dataclass(frozen=True)
class ChatMessage:
    """One turn. An assistant's may hold calls and reasoning; a tool's answers the call `tool_call_id`."""

    role: Role
    content: str = field(repr=False)
    tool_calls: tuple[ToolCall, ...] = field(default=(), repr=False)
    tool_call_id: str = field(default="", repr=False)
    name: str = field(default="", repr=False)
    reasoning: str = field(default="", repr=False)


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. temperature 0 is greedy; `seed` is always set, by the session if need be.

    Defaults leave the model's own distribution as it is; `top_k` 0 is no limit. `grammar` is llguidance's text of
    what the answer may be, empty for anything. `logprobs`: how many likely tokens to name beside each token that
    was drawn; None for no log-probabilities at all. `choices` answers were asked for, the best of `candidates`
    drawn ones; the engine makes one of these, and each has a seed of its own.
    """

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop: tuple[str, ...] = field(default=(), repr=False)
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    grammar: str = field(default="", repr=False)
    logprobs: int | None = None
    choices: int = 1
    candidates: int = 1


@dataclass(frozen=True)
class GenerationRequest:
    """`prompt` is chat messages (the model's template is applied) or plain text (it is not).

    `tools` are what the model may call, as OpenAI's API describes them, for templates that know of tools;
    `thinking` False asks the template for an answer without reasoning, where it can. `cache_salt` is 32 bytes that
    separate tenants in every cache, and `cache_lasts` says that more requests may come with them; `account` serves
    fairness alone. `speculate` False: guess no tokens ahead, so that the answer's pace does not tell how well it
    could be guessed.
    """

    prompt: Sequence[ChatMessage] | str = field(repr=False)
    sampling: Sampling
    cache_salt: bytes = field(repr=False)
    account: str = ""
    cache_lasts: bool = False
    tools: Sequence[Mapping[str, object]] = field(default=(), repr=False)
    thinking: bool | None = None
    speculate: bool = True


@dataclass(frozen=True)
class TokenLogprob:
    """A drawn token's bytes, its natural log-probability by the model alone, and the likeliest tokens', best first.

    "By the model alone": before penalties, bias, grammar and temperature.
    """

    token: bytes = field(repr=False)
    logprob: float
    top: tuple[tuple[bytes, float], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Delta:
    """Text that became certain with one step, and the counts so far. The last delta has a finish reason.

    `logprobs` are those of the tokens of this step, one that ends the answer left out; text may lag behind them.
    """

    text: str = field(repr=False)
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ModelCard:
    """What the manifest says of the model; readable without loading the weights.

    `thinks`: "tagged" where an answer may begin with <think>…</think>, "opened" where the template has already
    written <think>. `takes_tools`: the template has a place for tools, and calls are written in <tool_call> tags.
    """

    name: str
    weights_digest: bytes
    tokenizer_digest: bytes
    context_tokens: int
    engine: Mapping[str, str | int | bool]
    thinks: Thinking = "no"
    takes_tools: bool = False


@dataclass(frozen=True)
class Embedded:
    """One vector per text, and how many tokens each text took."""

    vectors: Sequence[Sequence[float]] = field(repr=False)
    token_counts: Sequence[int]


class Embedder(Protocol):
    """Turns texts into vectors. `embed` raises CapacityExceeded, ContextTooLong or EngineError."""

    lost: bool = False
    failed: bool = False

    @property
    def card(self) -> ModelCard: ...

    async def embed(self, texts: Sequence[str]) -> Embedded: ...

    async def close(self) -> None: ...


class Engine(Protocol):
    """Continuous generation for many requests at once.

    `generate` raises CapacityExceeded or ContextTooLong before its first delta, EngineError at any time;
    closing the generator (aclose) cancels the request within one step and frees what it held.
    """

    # It ended by itself: nothing but another process can serve again.
    lost: bool = False

    @property
    def failed(self) -> bool:
        """Whether it gave up for good, and another engine in its place might serve."""
        return False

    @property
    def card(self) -> ModelCard: ...

    @property
    def ready(self) -> bool:
        """Whether a request would be answered now: not while it loads, nor once it is lost."""
        return not self.lost

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]: ...

    def forget_all(self) -> None:
        """Let go of what is kept for tenants beyond their requests. One that keeps nothing does nothing."""

    async def close(self) -> None: ...
