"""The parameters of chat and text completions."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from confide_enclave.api.constraints import is_tool_name
from confide_enclave.api.reading import Body, Closed, invalid, not_text
from confide_enclave.engine import ChatMessage, ToolCall
from confide_enclave.errors import Refusal

MAX_STOPS: Final = 4
MAX_STOP_CHARS: Final = 256
MAX_MESSAGES: Final = 4096
MAX_TOOLS: Final = 64
MAX_CHOICES: Final = 16
MAX_BIASES: Final = 300
MAX_TOP_LOGPROBS: Final = 20
MAX_NAME_CHARS: Final = 64

HARMLESS: Final = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})
NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "store": (False,),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
}
UNSUPPORTED: Final[Mapping[str, str]] = {
    "audio": "the model writes text",
    "prediction": "",
    "web_search_options": "nothing here leaves the enclave",
    "moderation": "",
    "suffix": "",
    "prompt_cache_retention": "",
    "prompt_cache_options": "",
}


def _stops(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def text_of(content: object) -> object:
    """Join a list of text parts; anything else is left for the type check to refuse."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text":
            raise not_text(part)
        if not isinstance(part["text"], str):
            raise ValueError("a text part holds no text")  # noqa: TRY004 - pydantic reports ValueError
        texts.append(part["text"])
    return "".join(texts)


def _sole_prompt(prompt: object) -> object:
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise ValueError("exactly one prompt, as text, is supported")
        return prompt[0]
    return prompt


def _biases(value: object) -> object:
    """Read {"id": bias}; sorted, so that the same request always says the same."""
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise ValueError(f"it maps at most {MAX_BIASES} token ids to numbers")
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise ValueError("a key is no token id")
        if type(bias) not in (int, float) or not -100 <= bias <= 100:
            raise ValueError("a bias is a number from -100 to 100")
    return tuple(sorted((int(token), float(bias)) for token, bias in value.items()))


def without_empty(value: object) -> object:
    """Drop a message's null and empty members: clients send an answer's own message back as they got it."""
    if not isinstance(value, list):
        return value
    return [
        {k: v for k, v in each.items() if k in ("role", "content") or not (v is None or v == [])}
        if isinstance(each, dict)
        else each
        for each in value
    ]


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Tokens = Annotated[int, Field(ge=1, lt=1 << 31)]


class StreamOptions(Closed):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Generation(Body):
    """What completions share. Ours are `top_k`, `min_p`, `repetition_penalty`, `speculate`, a chat's `best_of`."""

    HARMLESS: ClassVar = HARMLESS
    NEUTRAL: ClassVar = NEUTRAL
    UNSUPPORTED: ClassVar = UNSUPPORTED

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, lt=1 << 31)
    min_p: float = Field(default=0.0, ge=0, le=1)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=2)
    logit_bias: Annotated[tuple[tuple[int, float], ...], BeforeValidator(_biases)] = ()
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    stop: Annotated[tuple[Stop, ...], BeforeValidator(_stops), Field(max_length=MAX_STOPS, strict=False)] = ()
    max_tokens: Tokens | None = None
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    best_of: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    speculate: bool = True

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def candidates(self) -> int:
        return self.best_of or self.n

    def check(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise Refusal(400, "'stream_options' is only allowed when 'stream' is true.", param="stream_options")
        if self.candidates < self.n:
            raise invalid("best_of", "it is less than 'n'")
        if self.stream and self.candidates > self.n:
            raise invalid("best_of", "the best is known at the end only, so it cannot be streamed")


class Function(Closed):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not is_tool_name(name):
            raise ValueError("a tool's name has 1 to 64 letters, digits, '_' and '-'")
        return name


class Tool(Closed):
    type: Literal["function"]
    function: Function


class NamedFunction(Closed):
    name: str


class NamedTool(Closed):
    type: Literal["function"]
    function: NamedFunction


class CalledFunction(Closed):
    name: str
    arguments: str


class CalledTool(Closed):
    id: str
    type: Literal["function"]
    function: CalledFunction


class JsonSchema(Closed):
    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Closed):
    """`regex` is ours: an answer that matches `pattern` as a whole."""

    type: Literal["text", "json_object", "json_schema", "regex"]
    json_schema: JsonSchema | None = None
    pattern: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "ResponseFormat":
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise ValueError("'json_schema' belongs to the type of that name")
        if (self.pattern is not None) != (self.type == "regex"):
            raise ValueError("'pattern' belongs to the type 'regex'")
        return self


class Message(Closed):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | None, BeforeValidator(text_of)] = None
    tool_calls: Annotated[tuple[CalledTool, ...], Field(max_length=MAX_TOOLS, strict=False)] = ()
    tool_call_id: str = ""
    name: str = Field(default="", max_length=MAX_NAME_CHARS)
    reasoning_content: str = ""

    @model_validator(mode="after")
    def _of_its_role(self) -> "Message":
        if self.content is None and not self.tool_calls:
            raise ValueError("the message has no content")
        if (self.tool_calls or self.reasoning_content) and self.role != "assistant":
            raise ValueError("only an assistant calls tools and reasons")
        if bool(self.tool_call_id) != (self.role == "tool"):
            raise ValueError("'tool_call_id' belongs to the role 'tool'")
        return self

    def to_engine(self) -> ChatMessage:
        return ChatMessage(
            "system" if self.role == "developer" else self.role,
            self.content or "",
            tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in self.tool_calls),
            self.tool_call_id,
            self.name,
            reasoning=self.reasoning_content,
        )


class ChatParameters(Generation):
    messages: Annotated[
        tuple[Message, ...],
        BeforeValidator(without_empty),
        Field(min_length=1, max_length=MAX_MESSAGES, strict=False),
    ]
    max_completion_tokens: Tokens | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    tools: Annotated[tuple[Tool, ...], Field(max_length=MAX_TOOLS, strict=False)] = ()
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "medium"] | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def logprob_count(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def check(self) -> None:
        super().check()
        if self.max_tokens and self.max_completion_tokens:
            raise Refusal(400, "Give 'max_tokens' or 'max_completion_tokens', not both.", param="max_tokens")
        if self.top_logprobs is not None and not self.logprobs:
            raise invalid("top_logprobs", "it needs 'logprobs'")


class CompletionParameters(Generation):
    NEUTRAL: ClassVar = {**NEUTRAL, "echo": (False,)}

    prompt: Annotated[str, BeforeValidator(_sole_prompt)]
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens or 16  # OpenAI's default for this endpoint

    @property
    def logprob_count(self) -> int | None:
        return self.logprobs
