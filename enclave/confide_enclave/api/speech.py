"""What a choice says so far: words, reasoning and calls, told apart in the model's text."""

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from confide_protocol.audit.message import message_text

from confide_enclave.engine import Delta, FinishReason, Thinking, TokenLogprob

OPEN_THOUGHT, CLOSE_THOUGHT = "<think>", "</think>"
OPEN_CALL, CLOSE_CALL = "<tool_call>", "</tool_call>"
_CALL: Final = re.compile(r'\s*\{"name": "([A-Za-z0-9_-]+)", "arguments": (.*)', re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """Some words, some reasoning, or one whole call; `name` is the called tool's, `text` its arguments."""

    kind: Literal["content", "reasoning", "call"]
    text: str = field(repr=False)
    name: str = field(default="", repr=False)


# Where calls may stand: nowhere, after any words, or in the place of words that a grammar binds.
Calls = Literal["never", "after", "instead"]


class Splitter:
    """Cut text into pieces as it comes. However it arrives, the same pieces add up."""

    def __init__(self, thinks: Thinking, calls: Calls) -> None:
        self._calls = calls
        self._held = ""
        self._state: Literal["start", "reasoning", "gap", "content", "call", "between"] = "content"
        if thinks == "tagged":
            self._state = "start"
        elif thinks == "opened":
            self._state = "reasoning"

    @property
    def reasons(self) -> bool:
        return self._state == "reasoning"

    def push(self, text: str, *, last: bool = False) -> list[Piece]:
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces, last=last):
            pass
        return pieces

    def _step(self, pieces: list[Piece], *, last: bool) -> bool:
        """Take what is certain off the held text; False when nothing more is."""
        if self._state == "start":
            bare = self._held.lstrip()
            if not last and len(bare) < len(OPEN_THOUGHT) and OPEN_THOUGHT.startswith(bare):
                return False
            opened = bare.startswith(OPEN_THOUGHT)
            self._held = bare.removeprefix(OPEN_THOUGHT) if opened else self._held
            self._state = "reasoning" if opened else "content"
            return True
        if self._state == "reasoning":
            return self._until(CLOSE_THOUGHT, "gap", "reasoning", pieces, last=last)
        if self._state == "gap":
            self._held = self._held.lstrip("\n")
            if not self._held:
                return False
            self._state = "content"
            return True
        if self._state == "content":
            if self._calls == "instead":
                if not last and len(self._held) < len(OPEN_CALL) and OPEN_CALL.startswith(self._held):
                    return False
                self._calls = "after" if self._held.startswith(OPEN_CALL) else "never"
            if self._calls == "after":
                return self._until(OPEN_CALL, "call", "content", pieces, last=last)
            if self._held:
                pieces.append(Piece("content", self._held))
            self._held = ""
            return False
        if self._state == "between":
            bare = self._held.lstrip()
            if OPEN_CALL.startswith(bare[: len(OPEN_CALL)]) and len(bare) < len(OPEN_CALL):
                return False
            self._held, self._state = bare.removeprefix(OPEN_CALL), "call"
            return True
        return self._call(pieces, last=last)

    def _until(
        self,
        mark: str,
        after: Literal["gap", "call"],
        kind: Literal["reasoning", "content"],
        pieces: list[Piece],
        *,
        last: bool,
    ) -> bool:
        text, found, rest = self._held.partition(mark)
        if not found:
            keep = 0 if last else next((n for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), 0)
            text, rest = text[: len(text) - keep], text[len(text) - keep :]
        if text:
            pieces.append(Piece(kind, text))
        self._held = rest
        if found:
            self._state = after
        return bool(found)

    def _call(self, pieces: list[Piece], *, last: bool) -> bool:
        body, found, rest = self._held.partition(CLOSE_CALL)
        if not found and not last:
            return False
        if said := _CALL.fullmatch(body):
            # The object that holds the call ends after its arguments; one that was cut short does not.
            arguments = said[2].rstrip().removesuffix("}") if found else said[2]
            pieces.append(Piece("call", arguments, said[1]))
        self._held, self._state = rest, "between"
        return bool(found)


@dataclass(frozen=True)
class Call:
    id: str = field(repr=False)
    name: str = field(repr=False)
    arguments: str = field(repr=False)


@dataclass
class Said:
    """One choice, whole so far. `begun`: some of it was sent; `ended`: so was its end."""

    index: int
    splitter: Splitter
    content: str = field(default="", repr=False)
    reasoning: str = field(default="", repr=False)
    calls: list[Call] = field(default_factory=list, repr=False)
    logprobs: list[TokenLogprob] | None = field(default=None, repr=False)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    finish: FinishReason | None = None
    begun: bool = False
    ended: bool = False
    _text: str = field(default="", repr=False)
    _told: int = 0

    def take(self, delta: Delta) -> None:
        self._text += delta.text
        if self.splitter.reasons:
            self.reasoning_tokens += delta.completion_tokens - self.completion_tokens
        self.prompt_tokens, self.completion_tokens = delta.prompt_tokens, delta.completion_tokens
        if delta.logprobs is not None:
            self.logprobs = self.logprobs or []
            self.logprobs += delta.logprobs
        self.finish = delta.finish_reason

    def advance(self, call_id: str) -> tuple[list[Piece], list[TokenLogprob] | None]:
        """Return what is new since the last time; it counts as said from here on."""
        pieces = self.splitter.push(self._text, last=self.finish is not None)
        self._text = ""
        for piece in pieces:
            if piece.kind == "content":
                self.content += piece.text
            elif piece.kind == "reasoning":
                self.reasoning += piece.text
            else:
                self.calls.append(Call(f"{call_id}{len(self.calls):02x}", piece.name, piece.text))
        news = None if self.logprobs is None else self.logprobs[self._told :]
        self._told += len(news or ())
        return pieces, news

    @property
    def finish_reason(self) -> str | None:
        return "tool_calls" if self.finish == "stop" and self.calls else self.finish

    @property
    def message(self) -> str:
        calls = [(call.name, call.arguments) for call in self.calls]
        return message_text(self.content, self.reasoning, calls)
