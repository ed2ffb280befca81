"""Reading an OpenAI request body: what is supported is checked, what is not is refused by name, never ignored."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from confide_enclave.engine import ChatMessage
from confide_enclave.errors import Refusal

MAX_STOPS: Final = 4
MAX_STOP_CHARS: Final = 256
MAX_MESSAGES: Final = 4096
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

# Accepted whatever they say: they ask for nothing that could be left undone.
_HARMLESS: Final = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})
# Known to OpenAI's API, not offered here: accepted only at the value that asks for nothing.
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "store": (False,),
    "echo": (False,),
    "logprobs": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none",),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": (True, False),
}
_UNSUPPORTED: Final = frozenset(
    {
        "top_logprobs",
        "audio",
        "prediction",
        "reasoning_effort",
        "verbosity",
        "web_search_options",
        "moderation",
        "suffix",
        "prompt_cache_retention",
    }
)


def _stops(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _text_of(content: object) -> object:
    """Join a list of text parts; anything else is left for the type check to refuse."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text":
            raise ValueError("only text parts are supported")
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


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class StreamOptions(_Closed):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class _Generation(_Closed):
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    stop: Annotated[tuple[Stop, ...], BeforeValidator(_stops), Field(max_length=MAX_STOPS, strict=False)] = ()
    max_tokens: int | None = Field(default=None, ge=1, lt=1 << 31)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class Message(_Closed):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text_of)]

    def to_engine(self) -> ChatMessage:
        return ChatMessage("system" if self.role == "developer" else self.role, self.content)


class ChatParameters(_Generation):
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=MAX_MESSAGES, strict=False)]
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=1 << 31)

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionParameters(_Generation):
    prompt: Annotated[str, BeforeValidator(_sole_prompt)]

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens or 16  # OpenAI's default for this endpoint


P = TypeVar("P", bound=_Generation)


def parse_parameters(body: bytes, model: type[P]) -> P:
    """Read a JSON body into `model`. Raises: Refusal naming the parameter, never its value."""
    tree = {name: value for name, value in _parse_object(body).items() if value is not None}
    for name in tree.keys() - model.model_fields.keys():
        _dismiss(name, tree.pop(name))
    if isinstance(tree.get("messages"), list):
        tree["messages"] = [_without_empty(message) for message in tree["messages"]]
    try:
        parameters = model.model_validate(tree)
    except ValidationError as fault:
        first = fault.errors(include_input=False, include_url=False, include_context=False)[0]
        _refuse_field(first["loc"], first["type"], first["msg"], frozenset(model.model_fields))
    if parameters.stream_options is not None and not parameters.stream:
        raise Refusal(400, "'stream_options' is only allowed when 'stream' is true.", param="stream_options")
    if isinstance(parameters, ChatParameters) and parameters.max_tokens and parameters.max_completion_tokens:
        raise Refusal(400, "Give 'max_tokens' or 'max_completion_tokens', not both.", param="max_tokens")
    return parameters


def _parse_object(body: bytes) -> dict[str, Any]:
    def constant(_: str) -> NoReturn:
        raise ValueError("NaN and infinities are not JSON")

    try:
        tree = json.loads(body.decode(), parse_constant=constant)
        # A lone surrogate is legal JSON and no text; nothing behind this line could encode it.
        json.dumps(tree, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refusal(400, "We could not parse the JSON body of your request.", code="invalid_json") from None
    if not isinstance(tree, dict):
        raise Refusal(400, "The JSON body of your request is not an object.", code="invalid_json")
    return tree


def _dismiss(name: str, value: object) -> None:
    """Let a parameter pass that asks for nothing; refuse every other one."""
    if name in _HARMLESS:
        return
    if name in _NEUTRAL:
        if any(type(value) is type(v) and value == v for v in _NEUTRAL[name]) or (
            isinstance(value, float) and value in _NEUTRAL[name]
        ):
            return
        raise Refusal(
            400,
            f"Unsupported value: '{name}' is supported only at its default here.",
            param=name,
            code="unsupported_value",
        )
    if name in _UNSUPPORTED:
        raise Refusal(400, f"Unsupported parameter: '{name}'.", param=name, code="unsupported_parameter")
    # The name is the caller's own text: it is repeated only where it is plainly a name.
    known = name if _NAME.fullmatch(name) else None
    raise Refusal(
        400,
        "Unrecognized request argument supplied" + (f": {known}." if known else "."),
        param=known,
        code="unknown_parameter",
    )


def _without_empty(message: object) -> object:
    """Drop a message's null and empty members: clients send an answer's own message back as they got it."""
    if not isinstance(message, dict):
        return message
    return {k: v for k, v in message.items() if k in ("role", "content") or not (v is None or v == [])}


def _refuse_field(location: tuple[int | str, ...], kind: str, message: str, known: frozenset[str]) -> NoReturn:
    name = str(location[0])
    if kind == "missing" and len(location) == 1:
        raise Refusal(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    # Of a nested place only indices and our own field names are shown: keys are the caller's text.
    place = name + "".join(f"[{part}]" for part in location[1:] if isinstance(part, int))
    if kind == "extra_forbidden":
        raise Refusal(400, f"Unsupported parameter in '{place}'.", param=place, code="unsupported_parameter")
    raise Refusal(400, f"Invalid value for '{place}': {message}.", param=place, code="invalid_value")
