"""llama.cpp's own completion: token ids both ways; its OpenAI-like calls take and give text alone."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from confide_enclave.engine import Sampling
from confide_enclave.remote.chunk import Chunk, Explained, Get, Identity, Usage
from confide_enclave.remote.completions import PATH_MODELS, Models
from confide_enclave.remote.errors import EngineMalformed
from confide_enclave.remote.reading import Id, Read, data_of, parse, parse_event, to_json

_PATH_PROPS: Final = "/props"
# Of its 32 bits the last number means a random seed.
_SEEDS: Final = 2**32 - 1
_REASONS: Final = {"eos": "stop", "limit": "length"}
_NONE: Final = "none"
# The order of the other engines; those that are not here are off.
_SAMPLERS: Final = ("penalties", "temperature", "top_k", "min_p", "top_p")


# Of the last event, which otherwise repeats the prompt and the grammar.
_FIELDS: Final = ("stop", "tokens", "tokens_predicted", "tokens_evaluated", "content", "stop_type", "model")


class _Top(Read):
    id: Id
    logprob: float


class _Probability(_Top):
    top_logprobs: list[_Top] = Field(repr=False)

    def explain(self) -> Explained:
        top = [(each.id, each.logprob) for each in self.top_logprobs]
        if not all(map(math.isfinite, (self.logprob, *(value for _, value in top)))):
            raise EngineMalformed
        return Explained(self.id, self.logprob, top)


class _Event(Read):
    stop: bool
    tokens: list[Id] = Field(repr=False)
    tokens_predicted: Annotated[int, Field(ge=0)]
    tokens_evaluated: Annotated[int, Field(ge=0)]
    content: str = Field(repr=False)
    completion_probabilities: list[_Probability] | None = Field(default=None, repr=False)
    stop_type: str = _NONE
    model: str | None = None


class _Slot(Read):
    n_ctx: int


class _Props(Read):
    build_info: str
    default_generation_settings: _Slot


@dataclass(frozen=True)
class Native:
    """It keeps nothing of a prompt for the next: every request says so. It has no salts."""

    path: str = "/completion"
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
            "prompt": list(prompt),
            "n_predict": limit,
            "samplers": _SAMPLERS,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "repeat_penalty": sampling.repetition_penalty,
            # All of it: its penalties count the prompt's tokens too.
            "repeat_last_n": len(prompt) + limit,
            "seed": sampling.seed % _SEEDS,
            "logit_bias": [[token, bias] for token, bias in sampling.logit_bias],
            "stop": [],
            "stream": True,
            "return_tokens": True,
            "cache_prompt": False,
            "n_cache_reuse": 0,
            "id_slot": -1,
            "n_probs": 0 if sampling.logprobs is None else max(1, sampling.logprobs),
            "post_sampling_probs": False,
            "response_fields": _FIELDS,
        }
        if sampling.grammar:
            tree["grammar"] = f"%llguidance {{}}\n{sampling.grammar}"
        return to_json(tree)

    def read(self, event: bytes) -> Chunk | None:
        said = parse_event(_Event, data_of(event))
        named = said.completion_probabilities
        usage = Usage(said.tokens_evaluated, said.tokens_predicted) if said.stop else None
        return Chunk(
            said.model,
            ids=said.tokens,
            explained=None if named is None else [each.explain() for each in named],
            total=said.tokens_predicted,
            text=said.content.encode(errors="surrogatepass"),
            finish_reason=_REASONS.get(said.stop_type, said.stop_type) if said.stop else None,
            usage=usage,
        )

    async def identify(self, get: Get) -> Identity:
        props = parse(_Props, await get(_PATH_PROPS))
        context = props.default_generation_settings.n_ctx
        models = parse(Models, await get(PATH_MODELS)).data
        return Identity(props.build_info, [(model.id, context) for model in models])
