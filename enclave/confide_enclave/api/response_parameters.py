"""The parameters of the Responses API, without state: nothing is stored, so nothing can be continued by name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from confide_enclave.api.parameters import MAX_MESSAGES, MAX_TOOLS, MAX_TOP_LOGPROBS, Tokens
from confide_enclave.api.reading import Body, Closed, invalid, not_text
from confide_enclave.engine import ChatMessage, Role, Sampling, ToolCall

_STATELESS: Final = "nothing is stored here; send the whole conversation in 'input'"
LOGPROBS: Final = "message.output_text.logprobs"
_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


# What our response's object says of parameters that were left out, or that ask for nothing here.
_ABSENT: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "previous_response_id": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
    "top_logprobs": 0,
    "store": False,
    "background": False,
    "service_tier": "default",
    "truncation": "disabled",
}
_PARTS: Final = ("input_text", "output_text", "reasoning_text")
# Of all members of an item, those that say something in one of its type.
_SAYING: Final[Mapping[str, frozenset[str]]] = {
    "message": frozenset({"role", "content"}),
    "function_call": frozenset({"call_id", "name", "arguments"}),
    "function_call_output": frozenset({"call_id", "output"}),
    "reasoning": frozenset({"content"}),
}
# OpenAI's bounds.
MAX_METADATA: Final = 16
MAX_METADATA_KEY: Final = 64
MAX_METADATA_VALUE: Final = 512


def _text_of(content: object) -> object:
    """Join text parts, of what was asked or of an earlier answer, whose other members say nothing."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in _PARTS:
            raise not_text(part)
        if not isinstance(part.get("text"), str) or any(
            part.get(k) for k in part.keys() - {"type", "text", "logprobs"}
        ):
            raise ValueError("a text part holds text and nothing else")
        texts.append(part["text"])
    return "".join(texts)


def _without_null(value: object) -> object:
    if not isinstance(value, list):
        return value
    return [{k: v for k, v in each.items() if v is not None} if isinstance(each, dict) else each for each in value]


class Item(Closed):
    """One item of the input: a message, a call, its result, or reasoning of an earlier answer of ours.

    `phase` tells words before calls from the last ones: no template has a place for it, the order of turns says it.
    """

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Annotated[str | None, BeforeValidator(_text_of)] = None
    id: str = ""
    status: str = ""
    phase: Literal["commentary", "final_answer"] | None = None
    summary: Annotated[tuple[str, ...], Field(strict=False, max_length=0)] = ()
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: Annotated[str, BeforeValidator(_text_of)] = ""

    @model_validator(mode="after")
    def _whole(self) -> "Item":
        own = _SAYING[self.type]
        if foreign := [n for n in sorted(frozenset().union(*_SAYING.values()) - own) if getattr(self, n)]:
            raise ValueError(f"an item of the type '{self.type}' has no '{foreign[0]}'")
        if self.type == "reasoning":
            return self
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
    verbosity: Literal["medium"] | None = None


class Reasoning(Closed):
    effort: Literal["none", "medium"] | None = None


class StreamOptions(Closed):
    include_obfuscation: Literal[False] = False


class ResponseParameters(Body):
    """`seed` and `speculate` are ours."""

    HARMLESS: ClassVar = frozenset({"user", "safety_identifier", "prompt_cache_key"})
    NEUTRAL: ClassVar = {
        # OpenAI's default is true, and its clients send it. The response says false: nothing is kept, whoever asks.
        "store": (False, True),
        "background": (False,),
        "truncation": ("disabled",),
        "service_tier": ("auto", "default"),
    }
    UNSUPPORTED: ClassVar = {
        "previous_response_id": _STATELESS,
        "conversation": _STATELESS,
        "prompt": "no prompts are kept here",
        "max_tool_calls": "it bounds built-in tools, and there are none",
        "context_management": _STATELESS,
        "moderation": "",
        "prompt_cache_retention": "",
        "prompt_cache_options": "",
        "access_programs": "",
        "image": "",
    }

    model: str
    input: (
        str
        | Annotated[
            tuple[Item, ...],
            BeforeValidator(_without_null),
            Field(min_length=1, max_length=MAX_MESSAGES, strict=False),
        ]
    )
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    tools: Annotated[tuple[FunctionTool, ...], Field(max_length=MAX_TOOLS, strict=False)] = ()
    tool_choice: Literal["none", "auto", "required"] | NamedFunction = "auto"
    parallel_tool_calls: bool = True
    text: TextOptions = TextOptions()
    reasoning: Reasoning = Reasoning()
    # Reasoning is never held back, and so never encrypted: it is given in full, and taken back so.
    include: Annotated[
        tuple[Literal["message.output_text.logprobs", "reasoning.encrypted_content"], ...], Field(strict=False)
    ] = ()
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    metadata: dict[
        Annotated[str, Field(max_length=MAX_METADATA_KEY)], Annotated[str, Field(max_length=MAX_METADATA_VALUE)]
    ] = Field(default_factory=dict, max_length=MAX_METADATA)
    speculate: bool = True

    @property
    def logprob_count(self) -> int | None:
        return (self.top_logprobs or 0) if LOGPROBS in self.include else None

    def check(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "it is only allowed when 'stream' is true")
        if self.top_logprobs and LOGPROBS not in self.include:
            raise invalid("top_logprobs", f"it needs 'include' with '{LOGPROBS}'")

    def echoed(self, sampling: Sampling) -> dict[str, Any]:
        """Return what the response's own object repeats; of identifiers and keys nothing, since none is used."""
        names = {
            "instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "presence_penalty",
            "frequency_penalty", "reasoning", "text", "tool_choice", "tools", "top_logprobs",
        }  # fmt: skip
        tree = self.model_dump(mode="json", by_alias=True, include=names, exclude_none=True)
        wanted = tree["text"].get("format", {"type": "text"})
        if wanted["type"] == "json_schema":
            wanted = {"description": None, "strict": None, **wanted}
        return {
            **_ABSENT,
            **tree,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "text": {**tree["text"], "format": wanted},
            "tools": [{"description": None, "strict": None, "parameters": None, **tool} for tool in tree["tools"]],
            "reasoning": {"effort": None, "summary": None, **tree["reasoning"]},
        }

    def messages(self) -> list[ChatMessage]:
        """Return the turns; calls that follow one another, or an assistant's words, are of one turn.

        Reasoning belongs to what the assistant does next; one that was cut before that is a turn of its own.
        """
        turns = [ChatMessage("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*turns, ChatMessage("user", self.input)]
        thought = ""
        for item in self.input:
            if thought and (item.type == "function_call_output" or item.role not in (None, "assistant")):
                turns.append(ChatMessage("assistant", "", reasoning=thought))
                thought = ""
            if item.type == "reasoning":
                thought += item.content or ""
            elif item.type == "function_call":
                call = ToolCall(item.call_id, item.name, item.arguments)
                last = turns.pop() if turns and turns[-1].role == "assistant" else ChatMessage("assistant", "")
                turns.append(replace(last, tool_calls=(*last.tool_calls, call), reasoning=last.reasoning + thought))
                thought = ""
            elif item.type == "function_call_output":
                turns.append(ChatMessage("tool", item.output, tool_call_id=item.call_id))
            elif item.role == "assistant":
                turns.append(ChatMessage("assistant", item.content or "", reasoning=thought))
                thought = ""
            else:
                turns.append(ChatMessage(_ROLES[item.role or "user"], item.content or ""))
        return [*turns, ChatMessage("assistant", "", reasoning=thought)] if thought else turns
