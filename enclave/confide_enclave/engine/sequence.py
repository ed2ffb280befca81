"""One request on its way through the engine."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from confide_protocol.errors import ContextTooLong, EngineError, LocalStateError

from confide_enclave.engine import Delta, FinishReason, Sampling, TokenLogprob
from confide_enclave.engine.grammar import Matcher
from confide_enclave.engine.sampler import Drawn
from confide_enclave.engine.tokens import TextStream, Tokens


@dataclass(eq=False)
class Sequence:
    """Token ids so far, how many of them are in the cache, and in which pages of it."""

    prompt: list[int] = field(repr=False)
    sampling: Sampling
    token_limit: int
    stream: TextStream = field(repr=False)
    deliver: Callable[[Delta | EngineError], object] = field(repr=False)
    grammar: Matcher | None = field(default=None, repr=False)
    generated: list[int] = field(default_factory=list, repr=False)
    computed: int = 0
    pages: list[int] = field(default_factory=list)
    cancelled: bool = False

    @property
    def remaining(self) -> int:
        """How many ids are not in the cache yet; the next token follows from the last of them."""
        return len(self.prompt) + len(self.generated) - self.computed

    def pending(self, count: int) -> list[int]:
        """Return the next `count` ids that are not in the cache yet."""
        start = self.computed - len(self.prompt)
        if start >= 0:
            return self.generated[start : start + count]
        return (self.prompt[self.computed :] + self.generated)[:count]

    def append(self, drawn: Drawn, tokens: Tokens) -> Delta:
        """Take the next token; return the text that it makes certain, with a finish reason if it is the last.

        Raises: EngineError when the grammar breaks a limit.
        """
        token = drawn.token
        self.generated.append(token)
        ended, full = token in tokens.end_ids, len(self.generated) >= self.token_limit
        logprobs = None if drawn.logprob is None else () if ended else (_spell(drawn, drawn.logprob, tokens),)
        if self.grammar is not None and not ended:
            self.grammar.advance(token)
            ended = self.grammar.done
        text = self.stream.push(tokens.token_bytes(token))
        if (ended or full) and not self.stream.stopped:
            text += self.stream.finish()
        stopped = ended or self.stream.stopped
        reason: FinishReason | None = "stop" if stopped else "length" if full else None
        return Delta(text, len(self.prompt), len(self.generated), reason, logprobs)


def _spell(drawn: Drawn, logprob: float, tokens: Tokens) -> TokenLogprob:
    top = tuple((tokens.token_bytes(token), value) for token, value in drawn.top)
    return TokenLogprob(tokens.token_bytes(drawn.token), logprob, top)


def token_limit(prompt: list[int], sampling: Sampling, context_tokens: int) -> int:
    """Return how long the answer may get: `max_tokens`, or what the prompt leaves of the context if that is less.

    Raises: ContextTooLong when it leaves nothing, LocalStateError when sampling is out of range.
    """
    if not (
        0 <= sampling.temperature < math.inf
        and 0 < sampling.top_p <= 1
        and 0 <= sampling.min_p <= 1
        and 0 < sampling.repetition_penalty < math.inf
        and sampling.max_tokens >= 1
    ):
        raise LocalStateError("sampling is out of range")
    if (room := context_tokens - len(prompt)) < 1:
        raise ContextTooLong(f"the prompt has {len(prompt)} tokens; the context holds {context_tokens}")
    return min(sampling.max_tokens, room)
