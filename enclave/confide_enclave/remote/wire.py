"""vLLM's completions as bytes: a request of token ids, and the events of its answer."""

import json
import math
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final

from confide_protocol.errors import LocalStateError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from confide_enclave.engine import Sampling
from confide_enclave.remote.errors import EngineLost, EngineMalformed

PATH_COMPLETIONS: Final = "/v1/completions"
PATH_MODELS: Final = "/v1/models"
PATH_HEALTH: Final = "/health"
PATH_VERSION: Final = "/version"
MAX_LOGPROBS: Final = 20
_DONE: Final = b"[DONE]"
_TOKEN: Final = re.compile(r"token_id:(\d{1,9})")
_SEED_MASK: Final = 2**63 - 1
_ENVELOPE_BYTES: Final = 64 << 10
_ID_BYTES, _TEXT_BYTES, _LOGPROB_BYTES = 12, 512, 64

Id = Annotated[int, Field(ge=0, lt=1 << 31)]


class _Read(BaseModel):
    """What a server says: strict in the fields that count, silent about the others."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)


class Logprobs(_Read):
    """Tokens by their ids, as `return_tokens_as_token_ids` makes them."""

    tokens: list[str] = Field(repr=False)
    token_logprobs: list[float] = Field(repr=False)
    top_logprobs: list[dict[str, float]] = Field(repr=False)

    def explain(self, ids: Sequence[int], count: int) -> list[tuple[float, list[tuple[int, float]]]]:
        """Return each token's log-probability, and the likeliest tokens' best first. Raises: EngineMalformed."""
        if not len(ids) == len(self.tokens) == len(self.token_logprobs) == len(self.top_logprobs):
            raise EngineMalformed
        if [_read_token(token) for token in self.tokens] != list(ids):
            raise EngineMalformed
        explained = []
        for drawn, named in zip(self.token_logprobs, self.top_logprobs, strict=True):
            top = [(_read_token(token), value) for token, value in named.items()]
            if not all(map(math.isfinite, (drawn, *(value for _, value in top)))):
                raise EngineMalformed
            explained.append((drawn, sorted(top, key=lambda pair: (-pair[1], pair[0]))[:count]))
        return explained


class Choice(_Read):
    index: Annotated[int, Field(ge=0, le=0)]
    token_ids: list[Id] = Field(repr=False)
    prompt_token_ids: list[Id] | None = Field(default=None, repr=False)
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Usage(_Read):
    prompt_tokens: int
    completion_tokens: int


class Chunk(_Read):
    """One event: a step of the one answer, or its token counts after the last."""

    model: str
    choices: Annotated[list[Choice], Field(max_length=1)]
    usage: Usage | None = None


class _Version(_Read):
    version: str


class ServedModel(_Read):
    id: str
    max_model_len: int


class _Models(_Read):
    data: Annotated[list[ServedModel], Field(max_length=64)]


def write_request(
    model: str, prompt: Sequence[int], sampling: Sampling, limit: int, ends: Collection[int], salt: str
) -> bytes:
    """Return a request's body. Every parameter is set: no default of the server's counts.

    Stop strings stay with us, so that they mean what they mean in the engine of our own.
    """
    tree: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": limit,
        "n": 1,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        # Not negative: there -1 means none.
        "seed": sampling.seed & _SEED_MASK,
        "stop_token_ids": sorted(ends),
        "skip_special_tokens": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "cache_salt": salt,
    }
    if sampling.logit_bias:
        tree["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.grammar:
        tree["structured_outputs"] = {"grammar": sampling.grammar}
    if sampling.logprobs is not None:
        if sampling.logprobs > MAX_LOGPROBS:
            raise LocalStateError("sampling is out of range")
        tree |= {"logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
    return json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()


def event_limit(prompt_tokens: int, limit: int, logprobs: int | None) -> int:
    """Return how many bytes an event may have that repeats the prompt's ids and holds every token of the answer."""
    of_token = _TEXT_BYTES + (0 if logprobs is None else _LOGPROB_BYTES * (logprobs + 2))
    return _ENVELOPE_BYTES + _ID_BYTES * prompt_tokens + of_token * limit


def read_event(event: bytes) -> Chunk | None:
    """Read one server-sent event; None for the last. Raises: EngineError."""
    lines = event.rstrip(b"\n").split(b"\n")
    if len(lines) != 1 or not lines[0].startswith(b"data:"):
        raise EngineMalformed
    data = lines[0].removeprefix(b"data:").strip()
    if data == _DONE:
        return None
    try:
        return Chunk.model_validate_json(data)
    except ValidationError:
        # What went wrong there is told as an event, in words that may quote the prompt.
        raise EngineLost if data.startswith(b'{"error"') else EngineMalformed from None


def read_version(data: bytes) -> str:
    """Raises: EngineMalformed."""
    try:
        return _Version.model_validate_json(data).version
    except ValidationError:
        raise EngineMalformed from None


def read_models(data: bytes) -> list[ServedModel]:
    """Raises: EngineMalformed."""
    try:
        return _Models.model_validate_json(data).data
    except ValidationError:
        raise EngineMalformed from None


def _read_token(token: str) -> int:
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise EngineMalformed
    return int(found[1])
