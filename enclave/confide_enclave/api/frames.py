"""OpenAI's response objects: every key that strict clients demand, null where there is nothing to say."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from confide_enclave.engine import Delta, FinishReason


def usage_of(delta: Delta) -> dict[str, int]:
    return {
        "prompt_tokens": delta.prompt_tokens,
        "completion_tokens": delta.completion_tokens,
        "total_tokens": delta.prompt_tokens + delta.completion_tokens,
    }


@dataclass(frozen=True)
class Frame(ABC):
    """What all objects of one answer share. `include_usage` puts the key into every streamed chunk."""

    request_id: str
    created_unix_s: int
    model: str
    fingerprint: str
    include_usage: bool = False

    PREFIX: ClassVar[str]
    WHOLE: ClassVar[str]
    PART: ClassVar[str]

    @abstractmethod
    def part(self, text: str, *, first: bool) -> dict[str, Any]: ...

    @abstractmethod
    def end(self, finish_reason: FinishReason) -> dict[str, Any]: ...

    @abstractmethod
    def whole(self, text: str, last: Delta) -> dict[str, Any]: ...

    def usage(self, last: Delta) -> dict[str, Any]:
        """The last chunk of a stream that asked for usage: no choices."""
        return {**self._chunk([]), "usage": usage_of(last)}

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
class ChatFrame(Frame):
    PREFIX = "chatcmpl-"
    WHOLE = "chat.completion"
    PART = "chat.completion.chunk"

    def part(self, text: str, *, first: bool) -> dict[str, Any]:
        delta = {"role": "assistant", "content": text, "refusal": None} if first else {"content": text}
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])

    def end(self, finish_reason: FinishReason) -> dict[str, Any]:
        return self._chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish_reason}])

    def whole(self, text: str, last: Delta) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish_reason}
        return {**self._object(self.WHOLE, [choice]), "usage": usage_of(last)}


@dataclass(frozen=True)
class TextFrame(Frame):
    PREFIX = "cmpl-"
    WHOLE = "text_completion"
    PART = "text_completion"

    def part(self, text: str, *, first: bool) -> dict[str, Any]:
        return self._chunk([{"index": 0, "text": text, "logprobs": None, "finish_reason": None}])

    def end(self, finish_reason: FinishReason) -> dict[str, Any]:
        return self._chunk([{"index": 0, "text": "", "logprobs": None, "finish_reason": finish_reason}])

    def whole(self, text: str, last: Delta) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": last.finish_reason}
        return {**self._object(self.WHOLE, [choice]), "usage": usage_of(last)}
