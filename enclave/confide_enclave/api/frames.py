"""OpenAI's response objects: every key that strict clients demand, null where there is nothing to say."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

from confide_enclave.api.answer import event
from confide_enclave.api.speech import Call, Piece, Said
from confide_enclave.engine import TokenLogprob

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Usage:
    """Tokens of all candidates; those of a prompt count once."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0

    @classmethod
    def of(cls, candidates: Sequence[Said]) -> "Usage":
        return cls(
            max(said.prompt_tokens for said in candidates),
            sum(said.completion_tokens for said in candidates),
            sum(said.reasoning_tokens for said in candidates),
        )

    def to_json(self) -> dict[str, Any]:
        tree: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.reasoning_tokens:
            tree["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return tree


@dataclass(frozen=True)
class Frame(ABC):
    """What all objects of one answer share. `include_usage` puts the key into every streamed chunk."""

    request_id: str
    created_unix_s: int
    model: str
    fingerprint: str
    include_usage: bool = False

    PREFIX: ClassVar[str]

    @abstractmethod
    def opening(self) -> list[bytes]:
        """Return the events before anything is said."""

    @abstractmethod
    def news(self, said: Said, pieces: Sequence[Piece], logprobs: list[TokenLogprob] | None) -> list[bytes]:
        """Return the events for what a choice said just now, and for its end. `said.begun`: it spoke before."""

    @abstractmethod
    def closing(self, choices: Sequence[Said], usage: Usage) -> list[bytes]:
        """Return the last events."""

    def messages(self, choices: Sequence[Said], *, done: bool) -> list[str]:
        """Return the messages that a reader of the events so far has seen."""
        return [said.message for said in choices if said.begun]

    @abstractmethod
    def whole(self, choices: Sequence[Said], usage: Usage) -> dict[str, Any]:
        """Return the body of an answer that is no stream."""


class CompletionFrame(Frame):
    """What chat and text completions share."""

    WHOLE: ClassVar[str]
    PART: ClassVar[str]

    @abstractmethod
    def _parts(
        self, said: Said, pieces: Sequence[Piece], logprobs: list[TokenLogprob] | None
    ) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _choice(self, said: Said) -> dict[str, Any]: ...

    def opening(self) -> list[bytes]:
        return []

    def news(self, said: Said, pieces: Sequence[Piece], logprobs: list[TokenLogprob] | None) -> list[bytes]:
        choices = self._parts(said, pieces, logprobs)
        return [event(self._chunk([choice])) for choice in choices]

    def closing(self, choices: Sequence[Said], usage: Usage) -> list[bytes]:
        last = [event({**self._chunk([]), "usage": usage.to_json()})] if self.include_usage else []
        return [*last, DONE]

    def whole(self, choices: Sequence[Said], usage: Usage) -> dict[str, Any]:
        return {**self._object(self.WHOLE, [self._choice(said) for said in choices]), "usage": usage.to_json()}

    def _object(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.request_id,
            "object": name,
            "created": self.created_unix_s,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = self._object(self.PART, choices)
        return {**chunk, "usage": None} if self.include_usage else chunk


@dataclass(frozen=True)
class ChatFrame(CompletionFrame):
    PREFIX = "chatcmpl-"
    WHOLE = "chat.completion"
    PART = "chat.completion.chunk"

    def _parts(
        self, said: Said, pieces: Sequence[Piece], logprobs: list[TokenLogprob] | None
    ) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = []
        number = len(said.calls) - sum(piece.kind == "call" for piece in pieces)
        for piece in pieces:
            if piece.kind == "call":
                deltas.append({"tool_calls": [{"index": number, **_call(said.calls[number])}]})
                number += 1
            else:
                deltas.append({"content" if piece.kind == "content" else "reasoning_content": piece.text})
        if not deltas and logprobs:
            deltas.append({})
        parts = [self._part(said, delta) for delta in deltas]
        if parts and not said.begun:
            first = {"role": "assistant", "content": None if "content" not in deltas[0] else "", "refusal": None}
            parts[0]["delta"] = {**first, **deltas[0]}
        if parts and logprobs is not None:
            parts[0]["logprobs"] = _chat_logprobs(logprobs)
        if said.finish is not None:
            parts.append(self._part(said, {}, said.finish_reason))
        return parts

    def _part(self, said: Said, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": said.index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}

    def _choice(self, said: Said) -> dict[str, Any]:
        content = said.content if said.content or not said.calls else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
        if said.calls:
            message["tool_calls"] = [_call(call) for call in said.calls]
        logprobs = None if said.logprobs is None else _chat_logprobs(said.logprobs)
        return {"index": said.index, "message": message, "logprobs": logprobs, "finish_reason": said.finish_reason}


@dataclass(frozen=True)
class TextFrame(CompletionFrame):
    PREFIX = "cmpl-"
    WHOLE = "text_completion"
    PART = "text_completion"

    def _parts(
        self, said: Said, pieces: Sequence[Piece], logprobs: list[TokenLogprob] | None
    ) -> list[dict[str, Any]]:
        text = "".join(piece.text for piece in pieces)
        parts = []
        if text or logprobs:
            shown = None if logprobs is None else _text_logprobs(said.logprobs or (), len(logprobs))
            parts.append({"index": said.index, "text": text, "logprobs": shown, "finish_reason": None})
        if said.finish is not None:
            parts.append({"index": said.index, "text": "", "logprobs": None, "finish_reason": said.finish})
        return parts

    def _choice(self, said: Said) -> dict[str, Any]:
        shown = None if said.logprobs is None else _text_logprobs(said.logprobs, len(said.logprobs))
        return {"index": said.index, "text": said.content, "logprobs": shown, "finish_reason": said.finish}


def token_logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    return [
        {
            **_token(each.token, each.logprob),
            "top_logprobs": [_token(token, logprob) for token, logprob in each.top],
        }
        for each in tokens
    ]


def _chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {"content": token_logprobs(tokens), "refusal": None}


def _text_logprobs(all_tokens: Sequence[TokenLogprob], news: int) -> dict[str, Any]:
    """Return the older form of the last `news` tokens.

    An offset counts the characters of all tokens before it, those of a split character as they decode alone: so it
    does not depend on how a stream is cut.
    """
    texts = [each.token.decode(errors="replace") for each in all_tokens]
    told = len(texts) - news
    start = sum(map(len, texts[:told]))
    tokens, texts = all_tokens[told:], texts[told:]
    offsets = list(accumulate(map(len, texts), initial=start))[:-1]
    tops = [{token.decode(errors="replace"): logprob for token, logprob in each.top} for each in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [each.logprob for each in tokens],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }


def _token(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token.decode(errors="replace"), "bytes": list(token), "logprob": logprob}


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
