"""OpenAI's completions with token ids both ways, as vLLM and SGLang have them."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from confide_enclave.engine import Sampling
from confide_enclave.remote.chunk import Chunk, Explained, Get, Identity, Usage
from confide_enclave.remote.errors import EngineMalformed
from confide_enclave.remote.reading import Id, Read, data_of, parse, parse_event, to_json

PATH_MODELS: Final = "/v1/models"
_TOKEN: Final = re.compile(r"token_id:(\d{1,9})")
_SEED_MASK: Final = 2**63 - 1


class _Logprobs(Read):
    """Tokens by their ids, as `return_tokens_as_token_ids` makes them."""

    tokens: list[str] = Field(repr=False)
    token_logprobs: list[float] = Field(repr=False)
    top_logprobs: list[dict[str, float]] = Field(repr=False)

    def explain(self) -> list[Explained]:
        """Raises: EngineMalformed."""
        if not len(self.tokens) == len(self.token_logprobs) == len(self.top_logprobs):
            raise EngineMalformed
        explained = []
        for token, drawn, named in zip(self.tokens, self.token_logprobs, self.top_logprobs, strict=True):
            top = [(_read_token(each), value) for each, value in named.items()]
            if not all(map(math.isfinite, (drawn, *(value for _, value in top)))):
                raise EngineMalformed
            explained.append(Explained(_read_token(token), drawn, top))
        return explained


class _Choice(Read):
    index: Annotated[int, Field(ge=0, le=0)]
    token_ids: list[Id] = Field(repr=False)
    prompt_token_ids: list[Id] | None = Field(default=None, repr=False)
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(Read):
    prompt_tokens: int
    completion_tokens: int


class _Event(Read):
    model: str
    choices: Annotated[list[_Choice], Field(max_length=1)]
    usage: _Usage | None = None


class _Version(Read):
    version: str
    # SGLang's alone.
    disable_radix_cache: bool | None = None


class _Model(Read):
    id: str
    max_model_len: int | None = None


class Models(Read):
    data: Annotated[list[_Model], Field(max_length=64)]


@dataclass(frozen=True)
class Completions:
    """`version` is where it says what it is; `grammar` in which field it takes llguidance's text; `no_top_k` is
    what "no limit" is called; `salts`: it keeps apart what is cached under different salts; where it does not, it
    has to say that it caches nothing.
    """

    version: str
    grammar: Literal["structured_outputs", "ebnf"]
    no_top_k: int
    salts: bool
    path: str = "/v1/completions"
    health: str = "/health"

    def write(
        self,
        model: str,
        prompt: Sequence[int],
        sampling: Sampling,
        limit: int,
        ends: Collection[int],
        salt: str,
    ) -> bytes:
        tree: dict[str, Any] = {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": limit,
            "n": 1,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or self.no_top_k,
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
            # Also where nothing is cached: one more wall, if that ever changes.
            "cache_salt": salt,
        }
        if sampling.logit_bias:
            tree["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
        if sampling.grammar:
            constraint = sampling.grammar
            tree[self.grammar] = {"grammar": constraint} if self.grammar == "structured_outputs" else constraint
        if sampling.logprobs is not None:
            tree |= {"logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
        return to_json(tree)

    def read(self, event: bytes) -> Chunk | None:
        data = data_of(event)
        if data == b"[DONE]":
            return None
        said = parse_event(_Event, data)
        counts = said.usage
        usage = None if counts is None else Usage(counts.prompt_tokens, counts.completion_tokens)
        if not said.choices:
            return Chunk(said.model, is_step=False, usage=usage)
        choice = said.choices[0]
        explained = None if choice.logprobs is None else choice.logprobs.explain()
        return Chunk(
            said.model,
            prompt_ids=choice.prompt_token_ids,
            ids=choice.token_ids,
            explained=explained,
            finish_reason=choice.finish_reason,
        )

    async def identify(self, get: Get) -> Identity:
        said = parse(_Version, await get(self.version))
        models = parse(Models, await get(PATH_MODELS)).data
        shares = ""
        if not self.salts and not said.disable_radix_cache:
            shares = "start it with --disable-radix-cache: what it caches of one tenant would answer another faster"
        return Identity(said.version, [(model.id, model.max_model_len or 0) for model in models], shares)


def _read_token(token: str) -> int:
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise EngineMalformed
    return int(found[1])
