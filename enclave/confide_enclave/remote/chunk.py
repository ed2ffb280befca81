"""What one event of any server says, once read: the words that the wires of all servers share."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from confide_enclave.engine import Sampling

# As many likely tokens as OpenAI's API names beside one.
MAX_LOGPROBS: Final = 20


@dataclass(frozen=True)
class Explained:
    """A drawn token's log-probability, and the likeliest tokens'."""

    token: int
    logprob: float
    top: Sequence[tuple[int, float]] = field(repr=False)


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Chunk:
    """A step of the one answer, its token counts, or both; `is_step` False: counts alone.

    `model` and `prompt_ids` are None where the server does not repeat them. A server that keeps tokens back until
    they make whole characters says with `total` how many there are so far, and with `text` what those since its
    last event spell; of them `ids` has the last one only.
    """

    model: str | None = None
    is_step: bool = True
    prompt_ids: Sequence[int] | None = field(default=None, repr=False)
    ids: Sequence[int] = field(default=(), repr=False)
    explained: Sequence[Explained] | None = field(default=None, repr=False)
    total: int | None = None
    text: bytes = field(default=b"", repr=False)
    finish_reason: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True)
class Identity:
    """What a server says of itself. `models`: each one's name and context; `shares` is why tenants would meet."""

    version: str
    models: Sequence[tuple[str, int]]
    shares: str = ""


# Fetches a document of the server's by its path. Raises: EngineError.
Get = Callable[[str], Awaitable[bytes]]


class Wire(Protocol):
    """How one kind of server is asked, and how what it says is read."""

    @property
    def path(self) -> str: ...

    @property
    def health(self) -> str: ...

    def write(
        self,
        model: str,
        prompt: Sequence[int],
        sampling: Sampling,
        limit: int,
        ends: Collection[int],
        salt: str,
    ) -> bytes:
        """Return a request's body. Every parameter is set: no default of the server's counts.

        Stop strings stay with us, so that they mean what they mean in the engine of our own.
        """

    def read(self, event: bytes) -> Chunk | None:
        """Read one server-sent event; None for the last. Raises: EngineError."""

    async def identify(self, get: Get) -> Identity:
        """Ask who it is. Raises: EngineError."""
