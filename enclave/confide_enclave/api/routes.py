"""Which path does what, and what each asks of which engine."""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from confide_enclave.api.answer import Answer, ApiRequest, Record, plain
from confide_enclave.api.choices import Plan, run, share_tokens
from confide_enclave.api.constraints import check_grammar, format_rule, make_grammar
from confide_enclave.api.embeddings import EmbeddingParameters, embedding_list
from confide_enclave.api.frames import ChatFrame, Frame, TextFrame
from confide_enclave.api.parameters import ChatParameters, CompletionParameters, Generation, NamedTool
from confide_enclave.api.reading import parse_parameters, unsupported
from confide_enclave.api.response_parameters import NamedFunction, ResponseParameters
from confide_enclave.api.responses import ResponseFrame
from confide_enclave.api.speech import Calls
from confide_enclave.api.tools import NO_PARAMETERS, ToolUse, check_calls, choose_tools, tell_of_tools
from confide_enclave.defaults import AnswerSettings
from confide_enclave.engine import ChatMessage, Embedder, Engine, GenerationRequest, ModelCard, Sampling
from confide_enclave.errors import Refusal

PATH_CHAT: Final = "/v1/chat/completions"
PATH_COMPLETIONS: Final = "/v1/completions"
PATH_RESPONSES: Final = "/v1/responses"
PATH_EMBEDDINGS: Final = "/v1/embeddings"
PATH_MODELS: Final = "/v1/models"
_LABEL_SALT: Final = b"confide.model-cache.v1"


class Api:
    """OpenAI's API over engines with a model each, and maybe one embedder. `fingerprint` names what runs."""

    def __init__(
        self,
        engines: Sequence[Engine],
        fingerprint: str,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        embedder: Embedder | None = None,
        answers: Mapping[str, AnswerSettings] | None = None,
    ) -> None:
        self._answers = answers or {}
        self._engines, self._embedder, self._fingerprint = tuple(engines), embedder, fingerprint
        self._clock, self._random = clock, random
        self._started_unix_s = int(clock())

    async def answer(self, request: ApiRequest) -> Answer:
        """Answer a request; return once its status is certain: before the first streamed batch, after a body.

        Raises: Refusal, EngineError. Cancelling it stops the engine.
        """
        asked = {
            PATH_CHAT: self._chat,
            PATH_COMPLETIONS: self._complete,
            PATH_RESPONSES: self._respond,
            PATH_EMBEDDINGS: self._embed,
        }.get(request.path)
        if asked is not None:
            _only(request, "POST")
            return await asked(request)
        if request.path == PATH_MODELS:
            _only(request, "GET")
            return plain(200, {"object": "list", "data": [self._model(card) for card in self._cards]}, Record())
        if request.path.startswith(PATH_MODELS + "/"):
            _only(request, "GET")
            card = _find_card(request.path.removeprefix(PATH_MODELS + "/"), self._cards)
            return plain(200, self._model(card), Record())
        if request.path.startswith((f"{PATH_RESPONSES}/resp_", f"{PATH_CHAT}/{ChatFrame.PREFIX}")):
            raise Refusal(404, "Nothing is stored here: an answer is only where it was sent.", code="not_stored")
        raise Refusal(404, "There is nothing at this path.", code="not_found")

    async def _chat(self, request: ApiRequest) -> Answer:
        asked = parse_parameters(request.body, ChatParameters)
        engine = self._find_engine(asked.model)
        functions = [tool.function for tool in asked.tools]
        tools = [(each.name, each.parameters or NO_PARAMETERS, each.description or "") for each in functions]
        choice = asked.tool_choice
        named = choice.function.name if isinstance(choice, NamedTool) else None
        use = choose_tools(
            tools, choice if isinstance(choice, str) else None, named, parallel=asked.parallel_tool_calls
        )
        wanted = asked.response_format
        rule = ""
        if wanted is not None:
            schema = wanted.json_schema.schema_ if wanted.json_schema else None
            rule = format_rule(wanted.type, schema, wanted.pattern, "response_format")
        plan = await self._converse(
            request,
            engine.card,
            [message.to_engine() for message in asked.messages],
            use,
            rule,
            self._sampling(asked, engine.card),
            effort=asked.reasoning_effort,
            places=("response_format", "reasoning_effort"),
        )
        frame = self._frame(ChatFrame, engine.card, asked)
        return await self._run(request, engine, plan, frame, stream=asked.stream, speculate=asked.speculate)

    async def _complete(self, request: ApiRequest) -> Answer:
        asked = parse_parameters(request.body, CompletionParameters)
        engine = self._find_engine(asked.model)
        sampling = self._sampling(asked, engine.card)
        wanted = GenerationRequest(
            asked.prompt,
            sampling,
            _salt_of(request, engine.card),
            request.account,
            cache_lasts=request.cache_lasts,
        )
        plan = Plan(wanted, logprobs=asked.logprobs is not None)
        frame = self._frame(TextFrame, engine.card, asked)
        return await self._run(request, engine, plan, frame, stream=asked.stream, speculate=asked.speculate)

    async def _respond(self, request: ApiRequest) -> Answer:
        asked = parse_parameters(request.body, ResponseParameters)
        engine = self._find_engine(asked.model)
        tools = [(tool.name, tool.parameters or NO_PARAMETERS, tool.description or "") for tool in asked.tools]
        choice = asked.tool_choice
        named = choice.name if isinstance(choice, NamedFunction) else None
        use = choose_tools(
            tools, choice if isinstance(choice, str) else None, named, parallel=asked.parallel_tool_calls
        )
        wanted = asked.text.format
        rule = format_rule(wanted.type, wanted.schema_, wanted.pattern, "text") if wanted is not None else ""
        answers = self._answers_of(engine.card)
        sampling = Sampling(
            temperature=_given(asked.temperature, answers.temperature),
            top_p=_given(asked.top_p, answers.top_p),
            max_tokens=share_tokens(asked.max_output_tokens, 1, answers.token_limit(engine.card.context_tokens)),
            seed=self._seed(asked.seed),
            frequency_penalty=asked.frequency_penalty,
            presence_penalty=asked.presence_penalty,
            logprobs=asked.logprob_count,
        )
        plan = await self._converse(
            request,
            engine.card,
            asked.messages(),
            use,
            rule,
            sampling,
            effort=asked.reasoning.effort,
            places=("text", "reasoning"),
        )
        frame = ResponseFrame(
            *self._named(ResponseFrame, engine.card), asked=asked.echoed(sampling), clock=self._clock
        )
        return await self._run(request, engine, plan, frame, stream=asked.stream, speculate=asked.speculate)

    async def _embed(self, request: ApiRequest) -> Answer:
        asked = parse_parameters(request.body, EmbeddingParameters)
        if self._embedder is None:
            raise Refusal(404, "This enclave serves no embeddings.", param="model", code="model_not_found")
        _find_card(asked.model, [self._embedder.card])
        embedded = await self._embedder.embed(asked.input)
        record = Record(prompt_tokens=sum(embedded.token_counts))
        return plain(200, embedding_list(asked.model, embedded, asked.encoding_format), record)

    async def _converse(
        self,
        request: ApiRequest,
        card: ModelCard,
        messages: Sequence[ChatMessage],
        use: ToolUse,
        rule: str,
        sampling: Sampling,
        *,
        effort: str | None,
        places: tuple[str, str],
    ) -> Plan:
        """Plan an answer to messages; `places` name the parameters of the format and of the effort."""
        check_calls(messages)
        if effort == "medium" and card.thinks == "no":
            raise unsupported(places[1])
        thinks = "no" if effort == "none" else card.thinks
        grammar = make_grammar(rule, use.schemas, must_call=use.must_call, parallel=use.parallel, thinks=thinks)
        await check_grammar(grammar, places[0] if rule else "tools")
        if not card.takes_tools:
            messages = tell_of_tools(messages, use.described)
        wanted = GenerationRequest(
            messages,
            replace(sampling, grammar=grammar),
            _salt_of(request, card),
            request.account,
            cache_lasts=request.cache_lasts,
            tools=use.described if card.takes_tools else (),
            thinking=None if effort is None else effort != "none",
        )
        calls: Calls = "never" if not use.tools else "instead" if rule else "after"
        call_id = "call_" + self._random(8).hex()
        return Plan(wanted, thinks, calls, sampling.logprobs is not None, call_id)

    async def _run(
        self, request: ApiRequest, engine: Engine, plan: Plan, frame: Frame, *, stream: bool, speculate: bool
    ) -> Answer:
        # Where sizes are hidden, the pace of a stream must not tell what could be guessed.
        guess = speculate and not (stream and request.flush_tokens > 1)
        plan = replace(plan, request=replace(plan.request, speculate=guess))
        answer = await run(engine, plan, frame, stream=stream, flush_tokens=request.flush_tokens)
        answer.record.model = engine.card.name
        return answer

    def _sampling(self, asked: ChatParameters | CompletionParameters, card: ModelCard) -> Sampling:
        answers = self._answers_of(card)
        return Sampling(
            temperature=_given(asked.temperature, answers.temperature),
            top_p=_given(asked.top_p, answers.top_p),
            max_tokens=share_tokens(asked.token_limit, asked.candidates, answers.token_limit(card.context_tokens)),
            seed=self._seed(asked.seed),
            stop=asked.stop,
            top_k=asked.top_k,
            min_p=asked.min_p,
            frequency_penalty=asked.frequency_penalty,
            presence_penalty=asked.presence_penalty,
            repetition_penalty=asked.repetition_penalty,
            logit_bias=asked.logit_bias,
            logprobs=asked.logprob_count,
            choices=asked.n,
            candidates=asked.candidates,
        )

    def _answers_of(self, card: ModelCard) -> AnswerSettings:
        return self._answers.get(card.name, AnswerSettings())

    def _seed(self, asked: int | None) -> int:
        return int.from_bytes(self._random(6)) if asked is None else asked

    def _frame(self, kind: type[ChatFrame] | type[TextFrame], card: ModelCard, asked: Generation) -> Frame:
        return kind(*self._named(kind, card), include_usage=asked.include_usage)

    def _named(self, kind: type[Frame], card: ModelCard) -> tuple[str, int, str, str]:
        return kind.PREFIX + self._random(12).hex(), int(self._clock()), card.name, self._fingerprint

    @property
    def _cards(self) -> list[ModelCard]:
        return [engine.card for engine in self._engines] + ([self._embedder.card] if self._embedder else [])

    def _find_engine(self, name: str) -> Engine:
        """Return the engine whose model has that name. Raises: Refusal."""
        card = _find_card(name, [engine.card for engine in self._engines])
        return next(engine for engine in self._engines if engine.card == card)

    def _model(self, card: ModelCard) -> dict[str, Any]:
        return {"id": card.name, "object": "model", "created": self._started_unix_s, "owned_by": "confide"}


def _given(asked: float | None, default: float) -> float:
    return default if asked is None else asked


def _only(request: ApiRequest, method: str) -> None:
    if request.method != method:
        raise Refusal(405, f"This path takes {method} alone.", code="method_not_allowed")


def _find_card(name: str, cards: Sequence[ModelCard]) -> ModelCard:
    """Return the one of that name. Raises: Refusal."""
    found = next((card for card in cards if card.name == name), None)
    if found is None:
        served = ", ".join(f"'{card.name}'" for card in cards)
        message = f"The model does not exist here; this enclave serves {served}."
        raise Refusal(404, message, param="model", code="model_not_found")
    return found


def _salt_of(request: ApiRequest, card: ModelCard) -> bytes:
    """Separate what one tenant's requests leave in the caches of different models."""
    return hmac.digest(request.cache_salt, _LABEL_SALT + card.name.encode(), hashlib.sha256)
