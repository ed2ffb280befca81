"""One answer as its chunks come: the server's token ids become our text, and every claim of it is checked."""

from collections.abc import Sequence
from typing import Final

from confide_enclave.engine import Delta, FinishReason, Sampling, TokenLogprob
from confide_enclave.engine.grammar import Matcher
from confide_enclave.engine.tokens import TextStream, Tokens
from confide_enclave.remote.errors import EngineLost, EngineMalformed
from confide_enclave.remote.wire import Choice, Chunk


class Answer:
    """Sans-IO. The last delta comes when the server's counts agree with ours, or a stop string is complete.

    `grammar` follows the answer: a server whose own automaton broke would let it end early, and look whole.
    """

    def __init__(
        self,
        model: str,
        prompt: Sequence[int],
        limit: int,
        sampling: Sampling,
        tokens: Tokens,
        grammar: Matcher | None = None,
    ) -> None:
        self._model, self._prompt, self._limit = model, list(prompt), limit
        self._sampling, self._tokens, self._grammar = sampling, tokens, grammar
        self._text = TextStream(sampling.stop)
        self._count, self._begun, self._ended = 0, False, False
        self._last: Delta | None = None
        # Each event but the first and the last has a token; a server may repeat itself a little.
        self._events_left = 2 * limit + 16

    def take(self, chunk: Chunk) -> Delta | None:
        """Return what became certain, if anything. Raises: EngineError."""
        self._events_left -= 1
        if chunk.model != self._model or not self._events_left:
            raise EngineMalformed
        if not chunk.choices:
            return self._close(chunk)
        if self._last is not None:
            raise EngineMalformed
        return self._step(chunk.choices[0])

    def _step(self, choice: Choice) -> Delta | None:
        if not self._begun and choice.prompt_token_ids != self._prompt:
            raise EngineMalformed  # it answers another prompt
        self._begun = True
        text, logprobs = self._read(choice)
        if self._text.stopped:
            return self._delta(text, logprobs, "stop")
        if choice.finish_reason is None:
            if self._ended:
                raise EngineMalformed
            return self._delta(text, logprobs) if choice.token_ids else None
        reason = _finish(choice.finish_reason)
        if reason == "stop" and not self._ended:
            self._take_foreign_end(choice.token_ids)
        if reason == "length" and (self._ended or self._count < self._limit):
            raise EngineMalformed
        text += self._text.finish()
        self._last = self._delta(text, logprobs, "stop" if self._text.stopped else reason)
        return None

    def _read(self, choice: Choice) -> tuple[str, tuple[TokenLogprob, ...] | None]:
        ids, wanted = choice.token_ids, self._sampling.logprobs
        explained = None
        if wanted is not None:
            if choice.logprobs is None and ids:
                raise EngineMalformed
            explained = choice.logprobs.explain(ids, wanted) if choice.logprobs else []
        text, spelled = "", []
        for index, token in enumerate(ids):
            if self._ended or self._count >= self._limit or token >= self._tokens.size:
                raise EngineMalformed
            self._count += 1
            self._ended = token in self._tokens.end_ids
            self._follow(token)
            text += self._text.push(self._tokens.token_bytes(token))
            if explained is not None and not self._ended:
                spelled.append(self._spell(token, *explained[index]))
            if self._text.stopped:
                break
        return text, None if explained is None else tuple(spelled)

    def _take_foreign_end(self, ids: Sequence[int]) -> None:
        """Let an end pass that the server knows of and we do not, unless it is text: then it reads other tokens."""
        if ids and self._tokens.token_bytes(ids[-1]):
            raise EngineMalformed
        self._follow(min(self._tokens.end_ids))

    def _follow(self, token: int) -> None:
        """Raises: EngineMalformed where the grammar does not let the token come, EngineError where it breaks."""
        if self._grammar is None:
            return
        if self._grammar.done:
            allowed = not self._tokens.token_bytes(token)
        else:
            allowed = bool(self._grammar.mask()[token >> 3] >> (token & 7) & 1)
        if not allowed:
            raise EngineMalformed
        if not self._grammar.done:
            self._grammar.advance(token)

    def _spell(self, token: int, logprob: float, top: Sequence[tuple[int, float]]) -> TokenLogprob:
        if any(other >= self._tokens.size for other, _ in top):
            raise EngineMalformed
        spell = self._tokens.token_bytes
        return TokenLogprob(spell(token), logprob, tuple((spell(other), value) for other, value in top))

    def _close(self, chunk: Chunk) -> Delta:
        if self._last is None or chunk.usage is None:
            raise EngineMalformed
        if (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) != (len(self._prompt), self._count):
            raise EngineMalformed
        return self._last

    def _delta(
        self, text: str, logprobs: tuple[TokenLogprob, ...] | None, reason: FinishReason | None = None
    ) -> Delta:
        return Delta(text, len(self._prompt), self._count, reason, logprobs)


_REASONS: Final[dict[str, FinishReason]] = {"stop": "stop", "length": "length"}


def _finish(said: str) -> FinishReason:
    """Any other reason is that the server gave up. Raises: EngineLost."""
    if said not in _REASONS:
        raise EngineLost
    return _REASONS[said]
