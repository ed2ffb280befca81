"""One request on its way through the engine."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from confide_protocol.errors import ContextTooLong, EngineError, LocalStateError

from confide_enclave.engine import Delta, FinishReason, Sampling, TokenLogprob
from confide_enclave.engine.grammar import Matcher
from confide_enclave.engine.pages import PAGE_TOKENS
from confide_enclave.engine.prefix import Chain
from confide_enclave.engine.sampler import Drawn
from confide_enclave.engine.speculate import Guesser
from confide_enclave.engine.tokens import TextStream, Tokens


@dataclass(eq=False)
class Sequence:
    """Token ids so far, how many of them are in the cache, and in which pages of it.

    `guesses` are ids that may come next; the cache may hold rows for them that never count as computed.
    `salt` names the tenant to the cache of prefixes, where `lasting` says that it can come back; `account` serves
    fairness alone. `entered`: how many tokens were generated when the scheduler last let it in. Of one that did not
    fit, `lacks` is how many pages it wanted, and `overtaken` how many others were let in before it.
    """

    prompt: list[int] = field(repr=False)
    sampling: Sampling
    token_limit: int
    stream: TextStream = field(repr=False)
    deliver: Callable[[Delta | EngineError], object] = field(repr=False)
    grammar: Matcher | None = field(default=None, repr=False)
    guesser: Guesser | None = field(default=None, repr=False)
    generated: list[int] = field(default_factory=list, repr=False)
    computed: int = 0
    pages: list[int] = field(default_factory=list)
    guesses: list[int] = field(default_factory=list, repr=False)
    cancelled: bool = False
    account: str = ""
    salt: bytes = field(default=b"", repr=False)
    lasting: bool = False
    chain: Chain | None = field(default=None, repr=False)
    entered: int = 0
    lacks: int = 0
    overtaken: int = 0

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.generated

    @property
    def remaining(self) -> int:
        """How many ids are not in the cache yet; the next token follows from the last of them."""
        return len(self.prompt) + len(self.generated) - self.computed

    def pending(self, count: int) -> list[int]:
        """Return the next `count` ids that are not in the cache yet, guesses last."""
        start = self.computed - len(self.prompt)
        ids = self.generated[start:] if start >= 0 else self.prompt[self.computed :] + self.generated
        return (ids + self.guesses)[:count]

    def guess(self, most: int) -> None:
        """Guess ahead where the next token is due, within the page that its row needs and what the answer may take.

        So a guess never takes a page, and needs none given back.
        """
        if self.guesser is not None and self.remaining == 1 and not self.guesses:
            left = self.token_limit - len(self.generated) - 1
            room = min(most, left, PAGE_TOKENS - 1 - self.computed % PAGE_TOKENS)
            self.guesses = self.guesser.guess(self.prompt, self.generated, room)

    def append(self, drawn: Drawn, tokens: Tokens) -> Delta:
        """Take the next token; return the text that it makes certain, with a finish reason if it is the last.

        If it was guessed its row is in the cache already, and that of the token after it was computed as well.

        Raises: GrammarTooComplex.
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
        right = self.guesses[:1] == [token] and reason is None
        self.guesses = self.guesses[1:] if right else []
        self.computed += right
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
