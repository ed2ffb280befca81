"""The Responses API, without state: nothing is stored, so nothing can be continued by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from confide_enclave.api.answer import to_json
from confide_enclave.api.frames import Frame, Usage, token_logprobs
from confide_enclave.api.parameters import MAX_MESSAGES, MAX_TOOLS, MAX_TOP_LOGPROBS, Tokens
from confide_enclave.api.reading import Body, Closed, invalid
from confide_enclave.api.speech import Piece, Said
from confide_enclave.engine import ChatMessage, Role, TokenLogprob, ToolCall

LOGPROBS: Final = "message.output_text.logprobs"
_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def _text_of(content: object) -> object:
    """Join text parts, of what was asked or of an earlier answer, whose other members say nothing."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in ("input_text", "output_text"):
            raise ValueError("only text parts are supported")
        if not isinstance(part.get("text"), str) or any(
            part.get(k) for k in part.keys() - {"type", "text", "logprobs"}
        ):
            raise ValueError("a text part holds text and nothing else")
        texts.append(part["text"])
    return "".join(texts)


class Item(Closed):
    """One item of the input: a message, a call, its result, or reasoning."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Annotated[str | None, BeforeValidator(_text_of)] = None
    id: str = ""
    status: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: Annotated[str, BeforeValidator(_text_of)] = ""

    @model_validator(mode="after")
    def _whole(self) -> "Item":
        if self.type == "reasoning":
            raise ValueError("reasoning is not taken back")
        if self.type == "message" and (self.role is None or self.content is None):
            raise ValueError("a message has a role and content")
        if self.type != "message" and not self.call_id:
            raise ValueError("a call and its result have a 'call_id'")
        if self.type == "function_call" and not self.name:
            raise ValueError("a call has a name")
        return self


class FunctionTool(Closed):
    type: Literal["function"]
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(Closed):
    type: Literal["function"]
    name: str


class TextFormat(Closed):
    """`regex` is ours: an answer that matches `pattern` as a whole."""

    type: Literal["text", "json_object", "json_schema", "regex"]
    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    pattern: str | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _whole(self) -> "TextFormat":
        if (self.schema_ is not None) != (self.type == "json_schema"):
            raise ValueError("'schema' belongs to the type 'json_schema'")
        if (self.pattern is not None) != (self.type == "regex"):
            raise ValueError("'pattern' belongs to the type 'regex'")
        return self


class TextOptions(Closed):
    format: TextFormat | None = None


class Reasoning(Closed):
    effort: Literal["none", "medium"] | None = None


class StreamOptions(Closed):
    include_obfuscation: Literal[False] = False


class ResponseParameters(Body):
    """`seed` and `speculate` are ours."""

    HARMLESS: ClassVar = frozenset({"user", "safety_identifier", "prompt_cache_key"})
    NEUTRAL: ClassVar = {
        "store": (False,),
        "background": (False,),
        "truncation": ("disabled",),
        "service_tier": ("auto", "default"),
    }
    UNSUPPORTED: ClassVar = frozenset(
        {
            "previous_response_id",
            "conversation",
            "prompt",
            "max_tool_calls",
            "context_management",
            "moderation",
            "prompt_cache_retention",
            "prompt_cache_options",
            "access_programs",
            "image",
        }
    )

    model: str
    input: str | Annotated[tuple[Item, ...], Field(min_length=1, max_length=MAX_MESSAGES, strict=False)]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    tools: Annotated[tuple[FunctionTool, ...], Field(max_length=MAX_TOOLS, strict=False)] = ()
    tool_choice: Literal["none", "auto", "required"] | NamedFunction = "auto"
    parallel_tool_calls: bool = True
    text: TextOptions = TextOptions()
    reasoning: Reasoning = Reasoning()
    include: Annotated[tuple[Literal["message.output_text.logprobs"], ...], Field(strict=False)] = ()
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    metadata: dict[str, str] = Field(default_factory=dict, max_length=16)
    speculate: bool = True

    @property
    def logprob_count(self) -> int | None:
        return (self.top_logprobs or 0) if self.include else None

    def check(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "it is only allowed when 'stream' is true")
        if self.top_logprobs is not None and not self.include:
            raise invalid("top_logprobs", f"it needs 'include' with '{LOGPROBS}'")

    def echoed(self) -> dict[str, Any]:
        """Return what the response's own object repeats."""
        names = {
            "instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "reasoning", "temperature",
            "text", "tool_choice", "tools", "top_logprobs", "top_p",
        }  # fmt: skip
        tree = self.model_dump(mode="json", by_alias=True, include=names, exclude_none=True)
        absent = dict.fromkeys(("instructions", "max_output_tokens"))
        text = {"format": {"type": "text"}, **tree["text"]}
        tools = [{"strict": None, "parameters": None, **tool} for tool in tree["tools"]]
        return {**absent, **tree, "text": text, "tools": tools}

    def messages(self) -> list[ChatMessage]:
        """Return the turns; calls that follow one another, or an assistant's words, are of one turn."""
        turns = [ChatMessage("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*turns, ChatMessage("user", self.input)]
        for item in self.input:
            if item.type == "function_call":
                call = ToolCall(item.call_id, item.name, item.arguments)
                last = turns.pop() if turns and turns[-1].role == "assistant" else ChatMessage("assistant", "")
                turns.append(ChatMessage("assistant", last.content, (*last.tool_calls, call)))
            elif item.type == "function_call_output":
                turns.append(ChatMessage("tool", item.output, tool_call_id=item.call_id))
            else:
                turns.append(ChatMessage(_ROLES[item.role or "user"], item.content or ""))
        return turns


@dataclass(frozen=True)
class ResponseFrame(Frame):
    """One response; `asked` repeats the parameters that its object names."""

    asked: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _sent: dict[str, int] = field(default_factory=lambda: {"events": 0, "items": 0, "calls": 0}, repr=False)
    _open: list[dict[str, Any]] = field(default_factory=list, repr=False)

    PREFIX = "resp_"

    def opening(self) -> list[bytes]:
        begun = self._response("in_progress", [])
        return [self._event(f"response.{name}", response=begun) for name in ("created", "in_progress")]

    def news(self, said: Said, pieces: Sequence[Piece], logprobs: list[TokenLogprob] | None) -> list[bytes]:
        events: list[bytes] = []
        waiting = token_logprobs(logprobs or [])
        for piece in pieces:
            if piece.kind == "call":
                events += self._close()
                events += self._whole_call(said)
                continue
            if not self._open or self._open[0]["type"] != _ITEM[piece.kind]:
                events += self._close()
                events += self._begin(piece.kind)
            events += self._say(piece, waiting)
            waiting = []
        if said.finish is not None:
            if not said.calls and not (self._open and self._open[0]["type"] == "message"):
                events += self._close()
                events += self._begin("content")
            events += self._close(incomplete=said.finish == "length")
        return events

    def closing(self, choices: Sequence[Said], usage: Usage) -> list[bytes]:
        whole = self.whole(choices, usage)
        return [self._event(f"response.{whole['status']}", response=whole)]

    def messages(self, choices: Sequence[Said], *, done: bool) -> list[str]:
        """Return the message once the whole response was sent: that is where a reader finds it."""
        return [said.message for said in choices] if done else []

    def whole(self, choices: Sequence[Said], usage: Usage) -> dict[str, Any]:
        (said,) = choices
        status = "incomplete" if said.finish == "length" else "completed"
        output: list[dict[str, Any]] = []
        if said.reasoning:
            output.append(_reasoning(self._item_id(len(output)), said.reasoning))
        if said.content or not said.calls:
            words = _message(self._item_id(len(output)), said.content, token_logprobs(said.logprobs or []))
            output.append({**words, "status": status})
        for call in said.calls:
            output.append(_call(self._item_id(len(output)), call.id, call.name, call.arguments))
        counts = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
        return {**self._response(status, output), "usage": counts}

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.request_id,
            "object": "response",
            "created_at": self.created_unix_s,
            "status": status,
            "error": None,
            "incomplete_details": cut,
            "model": self.model,
            "output": output,
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "usage": None,
            **self.asked,
        }

    def _item_id(self, number: int) -> str:
        return f"item_{self.request_id.removeprefix(self.PREFIX)}{number:02x}"

    def _event(self, kind: str, **more: Any) -> bytes:  # noqa: ANN401
        number, self._sent["events"] = self._sent["events"], self._sent["events"] + 1
        tree = {"type": kind, "sequence_number": number, **more}
        return b"event: " + kind.encode() + b"\ndata: " + to_json(tree) + b"\n\n"

    def _begin(self, kind: str) -> list[bytes]:
        number, self._sent["items"] = self._sent["items"], self._sent["items"] + 1
        item = _reasoning(self._item_id(number)) if kind == "reasoning" else _message(self._item_id(number))
        place = {"item_id": item["id"], "output_index": number, "content_index": 0}
        self._open[:] = [item, place]
        bare = {**item, "content": [], "status": "in_progress"}
        return [
            self._event("response.output_item.added", output_index=number, item=bare),
            self._event("response.content_part.added", **place, part={**item["content"][0], "text": ""}),
        ]

    def _say(self, piece: Piece, logprobs: list[dict[str, Any]]) -> list[bytes]:
        item, place = self._open
        (part,) = item["content"]
        part["text"] += piece.text
        if piece.kind == "reasoning":
            return [self._event("response.reasoning_text.delta", **place, delta=piece.text)]
        part["logprobs"] += logprobs
        return [self._event("response.output_text.delta", **place, delta=piece.text, logprobs=logprobs)]

    def _close(self, *, incomplete: bool = False) -> list[bytes]:
        if not self._open:
            return []
        item, place = self._open
        self._open.clear()
        (part,) = item["content"]
        if item["type"] == "reasoning":
            done = self._event("response.reasoning_text.done", **place, text=part["text"])
        else:
            item["status"] = "incomplete" if incomplete else "completed"
            named = {"text": part["text"], "logprobs": part["logprobs"]}
            done = self._event("response.output_text.done", **place, **named)
        return [
            done,
            self._event("response.content_part.done", **place, part=part),
            self._event("response.output_item.done", output_index=place["output_index"], item=item),
        ]

    def _whole_call(self, said: Said) -> list[bytes]:
        number, self._sent["items"] = self._sent["items"], self._sent["items"] + 1
        call, self._sent["calls"] = said.calls[self._sent["calls"]], self._sent["calls"] + 1
        item = _call(self._item_id(number), call.id, call.name, call.arguments)
        bare = {**item, "arguments": "", "status": "in_progress"}
        place = {"item_id": item["id"], "output_index": number}
        return [
            self._event("response.output_item.added", output_index=number, item=bare),
            self._event("response.function_call_arguments.delta", **place, delta=call.arguments),
            self._event("response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments),
            self._event("response.output_item.done", output_index=number, item=item),
        ]


_ITEM: Final = {"content": "message", "reasoning": "reasoning"}


def _message(item_id: str, text: str = "", logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}
    return {"id": item_id, "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def _reasoning(item_id: str, text: str = "") -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
    }


def _call(item_id: str, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    names = {"call_id": call_id, "name": name, "arguments": arguments}
    return {"id": item_id, "type": "function_call", "status": "completed", **names}
