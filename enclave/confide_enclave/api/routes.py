"""Which path does what, and how the engine's deltas become OpenAI's answers."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

from confide_protocol.errors import EngineError

from confide_enclave.api.answer import MEDIA_EVENTS, Answer, ApiRequest, Record, event, plain
from confide_enclave.api.frames import ChatFrame, Frame, TextFrame
from confide_enclave.api.parameters import ChatParameters, CompletionParameters, parse_parameters
from confide_enclave.engine import ChatMessage, Delta, Engine, GenerationRequest, Sampling
from confide_enclave.errors import Refusal

PATH_CHAT: Final = "/v1/chat/completions"
PATH_COMPLETIONS: Final = "/v1/completions"
PATH_MODELS: Final = "/v1/models"
DONE: Final = b"data: [DONE]\n\n"


class Api:
    """OpenAI's API over one engine with one model. `fingerprint` names what runs; clients see it."""

    def __init__(
        self, engine: Engine, fingerprint: str, *, clock: Callable[[], float], random: Callable[[int], bytes]
    ) -> None:
        self._engine, self._fingerprint = engine, fingerprint
        self._clock, self._random = clock, random
        self._started_unix_s = int(clock())

    async def answer(self, request: ApiRequest) -> Answer:
        """Answer a request; return once its status is certain: before the first streamed batch, after a body.

        Raises: Refusal, EngineError. Cancelling it stops the engine.
        """
        if request.path == PATH_CHAT:
            _only(request, "POST")
            chat = parse_parameters(request.body, ChatParameters)
            return await self._generate(request, chat, [m.to_engine() for m in chat.messages], ChatFrame)
        if request.path == PATH_COMPLETIONS:
            _only(request, "POST")
            text = parse_parameters(request.body, CompletionParameters)
            return await self._generate(request, text, text.prompt, TextFrame)
        if request.path == PATH_MODELS:
            _only(request, "GET")
            return plain(200, {"object": "list", "data": [self._model()]}, Record())
        if request.path.startswith(PATH_MODELS + "/"):
            _only(request, "GET")
            self._check_model(request.path.removeprefix(PATH_MODELS + "/"))
            return plain(200, self._model(), Record())
        raise Refusal(404, "There is nothing at this path.", code="not_found")

    async def _generate(
        self,
        request: ApiRequest,
        parameters: ChatParameters | CompletionParameters,
        prompt: list[ChatMessage] | str,
        kind: type[Frame],
    ) -> Answer:
        self._check_model(parameters.model)
        seed = parameters.seed
        sampling = Sampling(
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            max_tokens=parameters.token_limit or self._engine.card.context_tokens,
            seed=int.from_bytes(self._random(6)) if seed is None else seed,
            stop=parameters.stop,
        )
        record = Record(sampling=sampling)
        frame = kind(
            kind.PREFIX + self._random(12).hex(),
            int(self._clock()),
            self._engine.card.name,
            self._fingerprint,
            parameters.include_usage,
        )
        deltas = self._engine.generate(GenerationRequest(prompt, sampling, request.cache_salt, request.account))
        if not parameters.stream:
            return await _collect(deltas, frame, record)
        batches = _stream(deltas, frame, record, request.flush_tokens)
        return Answer(200, MEDIA_EVENTS, await anext(batches), batches, record)

    def _check_model(self, name: str) -> None:
        if name != self._engine.card.name:
            raise Refusal(
                404,
                f"The model does not exist here; this enclave serves '{self._engine.card.name}'.",
                param="model",
                code="model_not_found",
            )

    def _model(self) -> dict[str, str | int]:
        return {
            "id": self._engine.card.name,
            "object": "model",
            "created": self._started_unix_s,
            "owned_by": "confide",
        }


def _only(request: ApiRequest, method: str) -> None:
    if request.method != method:
        raise Refusal(405, f"This path takes {method} alone.", code="method_not_allowed")


async def _collect(deltas: AsyncGenerator[Delta, None], frame: Frame, record: Record) -> Answer:
    parts = []
    async with aclosing(deltas):
        async for delta in deltas:
            parts.append(delta.text)
            _count(record, delta)
            if delta.finish_reason is not None:
                record.messages = ["".join(parts)]
                return plain(200, frame.whole(record.messages[0], delta), record)
    raise EngineError


async def _stream(
    deltas: AsyncGenerator[Delta, None], frame: Frame, record: Record, flush_tokens: int
) -> AsyncGenerator[tuple[bytes, ...], None]:
    """Yield one batch for every `flush_tokens` tokens, empty if they made no text yet, and one at the end."""
    text, flushed_tokens = "", 0
    async with aclosing(deltas):
        async for delta in deltas:
            text += delta.text
            _count(record, delta)
            done = delta.finish_reason is not None
            if not done and delta.completion_tokens - flushed_tokens < flush_tokens:
                continue
            flushed_tokens = delta.completion_tokens
            batch = [event(frame.part(text, first=not record.messages))] if text else []
            if text:
                record.messages = ["".join([*record.messages, text])]
                text = ""
            if delta.finish_reason is None:
                yield tuple(batch)
                continue
            record.messages = record.messages or [""]
            batch.append(event(frame.end(delta.finish_reason)))
            if frame.include_usage:
                batch.append(event(frame.usage(delta)))
            yield (*batch, DONE)
            return
    raise EngineError


def _count(record: Record, delta: Delta) -> None:
    record.prompt_tokens, record.completion_tokens = delta.prompt_tokens, delta.completion_tokens
