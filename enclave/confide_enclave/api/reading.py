"""Reading an OpenAI request body: what is supported is checked, what is not is refused by name, never ignored."""

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from confide_enclave.errors import Refusal

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
# The parts of a message that OpenAI's APIs know beside text. Those that could hold a URL would have to be fetched.
_MEDIA: Final = frozenset(
    {"image_url", "input_audio", "file", "video_url", "input_image", "input_file", "audio_url", "image"}
)
_UNSUPPORTED_PART: Final = "unsupported_part"


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Body(Closed):
    """A request's body. Beside its fields, what its API knows and we do not do:

    `HARMLESS` is accepted whatever it says, since it asks for nothing that could be left undone; `NEUTRAL` only at
    a value that asks for nothing; `UNSUPPORTED` never, for the reason that it maps to, if there is more to say.
    """

    HARMLESS: ClassVar[frozenset[str]]
    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]]
    UNSUPPORTED: ClassVar[Mapping[str, str]]

    def check(self) -> None:
        """Raises: Refusal where parameters contradict one another."""


B = TypeVar("B", bound=Body)


def parse_parameters(body: bytes, model: type[B]) -> B:
    """Read a JSON body into `model`. Raises: Refusal naming the parameter, never its value."""
    tree = {name: value for name, value in _parse_object(body).items() if value is not None}
    for name in tree.keys() - model.model_fields.keys():
        _dismiss(name, tree.pop(name), model)
    try:
        parameters = model.model_validate(tree)
    except ValidationError as fault:
        faults = fault.errors(include_input=False, include_url=False, include_context=False)
        # Of a field that may be of several types, the one that the value came closest to has most to say.
        deepest = max(
            (each for each in faults if each["loc"][:1] == faults[0]["loc"][:1]), key=lambda f: len(f["loc"])
        )
        first = next((each for each in faults if each["type"] == _UNSUPPORTED_PART), deepest)
        _refuse_field(first["loc"], first["type"], first["msg"])
    except RecursionError:
        raise _too_deep() from None
    parameters.check()
    return parameters


def unsupported(name: str, why: str = "") -> Refusal:
    message = f"Unsupported parameter: '{name}'" + (f": {why}." if why else ".")
    return Refusal(400, message, param=name, code="unsupported_parameter")


def invalid(name: str, why: str) -> Refusal:
    return Refusal(400, f"Invalid value for '{name}': {why}.", param=name, code="invalid_value")


def not_text(part: object) -> PydanticCustomError:
    """Return the error for a part of a message that is no text; only a known type is repeated."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _MEDIA:
        return PydanticCustomError("value_error", "only text parts are supported")
    return PydanticCustomError(
        _UNSUPPORTED_PART,
        "parts of the type '{kind}' are not supported: the models here take text alone, and nothing is fetched",
        {"kind": kind},
    )


def _parse_object(body: bytes) -> dict[str, Any]:
    def constant(_: str) -> NoReturn:
        raise ValueError("NaN and infinities are not JSON")

    try:
        tree = json.loads(body.decode(), parse_constant=constant)
        # A lone surrogate and a number beyond all floats are legal JSON; nothing behind this line could write them.
        json.dumps(tree, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise _too_deep() from None
    if not isinstance(tree, dict):
        raise Refusal(400, "The JSON body of your request is not an object.", code="invalid_json")
    return tree


def _too_deep() -> Refusal:
    return Refusal(400, "We could not parse the JSON body of your request.", code="invalid_json")


def _dismiss(name: str, value: object, model: type[Body]) -> None:
    """Let a parameter pass that asks for nothing; refuse every other one."""
    if name in model.HARMLESS:
        return
    if name in model.NEUTRAL:
        if any(type(value) is type(v) and value == v for v in model.NEUTRAL[name]):
            return
        raise Refusal(
            400,
            f"Unsupported value: '{name}' may be left out, or {' or '.join(map(json.dumps, model.NEUTRAL[name]))}.",
            param=name,
            code="unsupported_value",
        )
    if name in model.UNSUPPORTED:
        raise unsupported(name, model.UNSUPPORTED[name])
    # The name is the caller's own text: it is repeated only where it is plainly a name.
    known = name if _NAME.fullmatch(name) else None
    raise Refusal(
        400,
        "Unrecognized request argument supplied" + (f": {known}." if known else "."),
        param=known,
        code="unknown_parameter",
    )


def _refuse_field(location: tuple[int | str, ...], kind: str, message: str) -> NoReturn:
    name = str(location[0]) if location else "body"
    if kind == "missing" and len(location) == 1:
        raise Refusal(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    # Of a nested place only indices and our own field names are shown: keys are the caller's text.
    place = name + "".join(f"[{part}]" for part in location[1:] if isinstance(part, int))
    if kind == "extra_forbidden":
        raise Refusal(400, f"Unsupported parameter in '{place}'.", param=place, code="unsupported_parameter")
    if kind == _UNSUPPORTED_PART:
        raise Refusal(400, f"Unsupported content in '{place}': {message}.", param=place, code="unsupported_value")
    raise invalid(place, message.rstrip("."))
