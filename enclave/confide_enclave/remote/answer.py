"""One answer as its chunks come: the server's token ids become our text, and every claim of it is checked."""

from collections.abc import Sequence
from typing import Final

from confide_enclave.engine import Delta, FinishReason, Sampling, TokenLogprob
from confide_enclave.engine.grammar import Matcher
from confide_enclave.engine.tokens import TextStream, Tokens
from confide_enclave.remote.chunk import Chunk, Explained
from confide_enclave.remote.errors import EngineLost, EngineMalformed, EngineRefused


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
        *,
        repeats_prompt: bool = True,
    ) -> None:
        self._model, self._prompt, self._limit = model, list(prompt), limit
        self._sampling, self._tokens, self._grammar = sampling, tokens, grammar
        self._repeats_prompt, self._newest = repeats_prompt, -1
        self._text = TextStream(sampling.stop)
        self._count, self._begun, self._ended = 0, False, False
        self._last: Delta | None = None
        # Each event but the first and the last has a token; a server may repeat itself a little.
        self._events_left = 2 * limit + 16

    def take(self, chunk: Chunk) -> Delta | None:
        """Return what became certain, if anything. Raises: EngineError."""
        self._events_left -= 1
        if chunk.model not in (None, self._model) or not self._events_left:
            raise EngineMalformed
        if chunk.is_step:
            if self._last is not None:
                raise EngineMalformed
            delta = self._step(chunk)
            if delta is not None or chunk.usage is None:
                return delta
        return self._close(chunk)

    def _step(self, chunk: Chunk) -> Delta | None:
        if not self._begun and self._repeats_prompt and chunk.prompt_ids != self._prompt:
            raise EngineMalformed  # it answers another prompt
        self._begun = True
        text = self._catch_up(chunk)
        said, logprobs = self._read(chunk)
        text += said
        if self._text.stopped:
            return self._delta(text, logprobs, "stop")
        if chunk.finish_reason is None:
            if chunk.usage is not None:
                raise EngineMalformed
            return self._delta(text, logprobs) if chunk.ids else None
        reason = _finish(chunk.finish_reason)
        if reason == "stop" and not self._ended:
            self._take_foreign_end()
        if reason == "length" and (self._ended or self._count < self._limit):
            raise EngineMalformed
        text += self._text.finish()
        self._last = self._delta(text, logprobs, "stop" if self._text.stopped else reason)
        return None

    def _catch_up(self, chunk: Chunk) -> str:
        """Return the text of tokens that the server counted and does not name, but spells.

        It keeps a token that ends within a character, and then names the one alone that completes it. What the
        answer's end leaves incomplete is not spelled either: it is no text.
        """
        if chunk.total is None or (unseen := chunk.total - self._count - len(chunk.ids)) == 0:
            return ""
        if unseen < 0 or self._ended or self._count + unseen > self._limit:
            raise EngineMalformed
        if self._sampling.logprobs is not None:
            raise EngineRefused  # nobody says what these were
        if any(token >= self._tokens.size for token in chunk.ids):
            raise EngineMalformed
        spelled, last = chunk.text, b"".join(map(self._tokens.token_bytes, chunk.ids))
        if not chunk.finish_reason and (not spelled.endswith(last) or len(spelled) - len(last) < unseen):
            raise EngineMalformed
        self._count, self._newest = self._count + unseen, -1
        data = spelled[: len(spelled) - len(last)]
        if self._grammar is not None:
            for byte in data:
                self._follow(self._tokens.byte_ids.get(byte, self._tokens.size))
        return self._text.push(data)

    def _read(self, chunk: Chunk) -> tuple[str, tuple[TokenLogprob, ...] | None]:
        ids, explained = chunk.ids, chunk.explained
        if self._sampling.logprobs is None:
            explained = None
        elif explained is None and ids:
            raise EngineMalformed
        if explained and [each.token for each in explained] != list(ids):
            raise EngineMalformed
        text, spelled = "", []
        for index, token in enumerate(ids):
            if self._ended or self._count >= self._limit or token >= self._tokens.size:
                raise EngineMalformed
            self._count, self._newest = self._count + 1, token
            self._ended = token in self._tokens.end_ids
            self._follow(token)
            text += self._text.push(self._tokens.token_bytes(token))
            if explained and not self._ended:
                spelled.append(self._spell(explained[index]))
            if self._text.stopped:
                break
        return text, None if self._sampling.logprobs is None else tuple(spelled)

    def _take_foreign_end(self) -> None:
        """Let an end pass that the server knows of and we do not, unless it is text: then it reads other tokens."""
        if self._newest >= 0 and self._tokens.token_bytes(self._newest):
            raise EngineMalformed
        self._follow(min(self._tokens.end_ids))

    def _follow(self, token: int) -> None:
        """Raises: EngineMalformed where the grammar does not let the token come, EngineError where it breaks."""
        if self._grammar is None:
            return
        if self._grammar.done:
            allowed = not self._tokens.token_bytes(token)
        else:
            # Another tokenizer spells what is forced in other tokens.
            allowed = token < self._tokens.size and self._grammar.accepts(token)
        if not allowed:
            raise EngineMalformed
        if not self._grammar.done:
            self._grammar.advance(token)

    def _spell(self, said: Explained) -> TokenLogprob:
        top = sorted(said.top, key=lambda pair: (-pair[1], pair[0]))[: self._sampling.logprobs]
        if any(other >= self._tokens.size for other, _ in top):
            raise EngineMalformed
        spell = self._tokens.token_bytes
        return TokenLogprob(spell(said.token), said.logprob, tuple((spell(other), value) for other, value in top))

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
