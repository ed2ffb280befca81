"""Reading and writing JSON of a server beside us: strict in what counts, and no byte of it in any message."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from confide_enclave.remote.errors import EngineLost, EngineMalformed

_ENVELOPE_BYTES: Final = 64 << 10
_ID_BYTES, _TEXT_BYTES, _LOGPROB_BYTES = 12, 512, 256

Id = Annotated[int, Field(ge=0, lt=1 << 31)]


class Read(BaseModel):
    """What a server says: strict in the fields that count, silent about the others."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)


_Read = TypeVar("_Read", bound=Read)


def to_json(tree: Mapping[str, Any]) -> bytes:
    return json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()


def data_of(event: bytes) -> bytes:
    """Return the data of one server-sent event. Raises: EngineMalformed unless it has that line alone."""
    lines = event.rstrip(b"\n").split(b"\n")
    if len(lines) != 1 or not lines[0].startswith(b"data:"):
        raise EngineMalformed
    return lines[0].removeprefix(b"data:").strip()


def parse(kind: type[_Read], data: bytes) -> _Read:
    """Raises: EngineMalformed."""
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        raise EngineMalformed from None


def parse_event(kind: type[_Read], data: bytes) -> _Read:
    """Raises: EngineError; what went wrong there is told as an event too, in words that may quote the prompt."""
    try:
        return parse(kind, data)
    except EngineMalformed:
        raise EngineLost if data.startswith(b'{"error"') else EngineMalformed from None


def event_limit(prompt_tokens: int, limit: int, logprobs: int | None) -> int:
    """Return how many bytes an event may have that repeats the prompt and holds every token of the answer."""
    of_token = _TEXT_BYTES + (0 if logprobs is None else _LOGPROB_BYTES * (logprobs + 2))
    return _ENVELOPE_BYTES + (_ID_BYTES + _TEXT_BYTES) * prompt_tokens + of_token * limit
