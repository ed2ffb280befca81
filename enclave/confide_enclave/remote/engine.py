"""A server in another process behind the seam: our tokens, its arithmetic."""

import asyncio
import hashlib
import hmac
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import structlog
from confide_protocol.errors import ConfigError, ContextTooLong, EngineError, TooLarge
from confide_protocol.sse import EventSplitter

from confide_enclave.engine import Delta, Engine, GenerationRequest, ModelCard
from confide_enclave.engine.fairness import Admission
from confide_enclave.engine.grammar import Grammars
from confide_enclave.engine.tokens import Tokens
from confide_enclave.errors import Refusal, UnknownToken
from confide_enclave.remote.answer import Answer
from confide_enclave.remote.arguments import make_environment, own_arguments
from confide_enclave.remote.card import TESTED_VERSIONS, read_card, read_vocabulary
from confide_enclave.remote.errors import EngineFailed, EngineLoading, EngineLost, EngineMalformed, EngineRefused
from confide_enclave.remote.http import Client
from confide_enclave.remote.process import Launch, Supervisor
from confide_enclave.remote.settings import UNIX, RemoteSettings
from confide_enclave.remote.wire import (
    MAX_LOGPROBS,
    PATH_COMPLETIONS,
    PATH_HEALTH,
    PATH_MODELS,
    PATH_VERSION,
    event_limit,
    read_event,
    read_models,
    read_version,
    write_request,
)
from confide_enclave.settings import load_gateway_secret

_LABEL_SALT: Final = b"confide.engine-cache.v1"
_SALT_BYTES: Final = 32
log = structlog.get_logger(__name__)


class RemoteEngine(Engine):
    """Not replayable: the server rounds as its neighbours have it, so its mode is `fast`."""

    def __init__(self, card: ModelCard, tokens: Tokens, weights: Path, settings: RemoteSettings, file: str) -> None:
        self._card, self._tokens, self._settings, self._file = card, tokens, settings, file
        self._grammars = Grammars(tokens)
        self._salt_key = secrets.token_bytes(_SALT_BYTES)
        self._admitted = Admission(settings.max_account_requests, settings.max_requests)
        self._folder: str | None = None
        launch, url = None, settings.url
        if url is None:
            key = secrets.token_hex(32)
            self._folder = tempfile.mkdtemp(prefix="confide-engine-")  # 0700: nobody else finds the socket
            socket = os.path.join(self._folder, "socket")
            url = UNIX + socket
            own = own_arguments(str(weights), card.name, socket, card.context_tokens, MAX_LOGPROBS)
            environment = make_environment(os.environ, settings.environment, key)
            launch = Launch((*settings.command, *settings.arguments, *own), socket, environment)
        else:
            path = settings.api_key_file
            key = "" if path is None else load_gateway_secret(Path(path), "engine.api_key_file").decode()
        self._client = Client(url, key, settings.connect_timeout_s)
        self._supervisor = Supervisor(settings, launch, self._examine, self._check, file)

    @classmethod
    def load(cls, weights: Path, name: str, settings: RemoteSettings, file: str) -> "RemoteEngine":
        """Start the server, or find it, and return when it is ready. Raises: ConfigError.

        weights: the published directory that the server reads, from which come our tokenizer and template. `file`
        names the configuration in messages.
        """
        vocabulary = read_vocabulary(weights)
        card = read_card(weights, name, settings, vocabulary)
        if settings.version not in TESTED_VERSIONS:
            log.warning("engine.untested_version")
        engine = cls(card, Tokens(vocabulary), weights, settings, file)
        try:
            engine._supervisor.start()
        except BaseException:
            engine._remove_folder()
            raise
        return engine

    @property
    def card(self) -> ModelCard:
        return self._card

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Yield what each event of the server makes certain. Closing closes the connection, which ends it there."""
        self._demand_ready()
        self._admitted.enter(request.account)
        try:
            answer, body, max_bytes = await asyncio.to_thread(self._prepare, request)
            wait_s = self._settings.first_token_timeout_s
            async with aclosing(self._events(body, max_bytes)) as events:
                while True:
                    try:
                        async with asyncio.timeout(wait_s):
                            event = await anext(events, None)
                    except TimeoutError:
                        raise EngineLost from None
                    if event is None:
                        raise EngineLost
                    if (chunk := read_event(event)) is None:
                        raise EngineMalformed
                    if (delta := answer.take(chunk)) is None:
                        continue
                    wait_s = self._settings.idle_timeout_s
                    yield delta
                    if delta.finish_reason:
                        return
        finally:
            self._admitted.leave(request.account)

    def forget_all(self) -> None:
        """Let no later request find what is cached: every salt is another from here on.

        Does not zero it: the server overwrites its pages when it needs them.
        """
        self._salt_key = secrets.token_bytes(_SALT_BYTES)

    async def close(self) -> None:
        """Stop the server, if it was started here."""
        await asyncio.to_thread(self._supervisor.close)
        self._remove_folder()

    def _demand_ready(self) -> None:
        state = self._supervisor.state
        if state == "failed":
            raise EngineFailed
        if state == "closed":
            raise EngineError("the engine is closed")
        if state != "ready":
            raise EngineLoading

    def _prepare(self, request: GenerationRequest) -> tuple[Answer, bytes, int]:
        name, tokens, sampling = self._card.name, self._tokens, request.sampling
        if sampling.grammar and sampling.logprobs is not None:
            param = "best_of" if sampling.candidates > sampling.choices else "logprobs"
            message = f"'{param}' cannot go with a format or with tools here: this engine counts after them."
            raise Refusal(400, message, param=param, code="unsupported_parameter")
        if any(token >= tokens.size for token, _ in sampling.logit_bias):
            raise UnknownToken
        prompt = tokens.encode(request.prompt, request.tools, request.thinking)
        context = self._card.context_tokens
        if (room := context - len(prompt)) < 1:
            raise ContextTooLong(f"the prompt has {len(prompt)} tokens; the context holds {context}")
        limit = min(sampling.max_tokens, room)
        grammar = self._grammars.start(sampling.grammar) if sampling.grammar else None
        salt = self._derive_salt(request.cache_salt)
        body = write_request(name, prompt, sampling, limit, tokens.end_ids, salt)
        max_bytes = self._settings.max_event_bytes or event_limit(len(prompt), limit, sampling.logprobs)
        return Answer(name, prompt, limit, sampling, tokens, grammar), body, max_bytes

    def _derive_salt(self, salt: bytes) -> str:
        """Return 64 hex digits that the tenant's salt decides and does not show; random ones where it has none."""
        if len(salt) != _SALT_BYTES or not any(salt):
            return secrets.token_hex(_SALT_BYTES)
        return hmac.digest(self._salt_key, _LABEL_SALT + salt, hashlib.sha256).hex()

    async def _events(self, body: bytes, max_bytes: int) -> AsyncGenerator[bytes, None]:
        splitter = EventSplitter(max_bytes)
        async with aclosing(self._client.post(PATH_COMPLETIONS, body)) as pieces:
            async for piece in pieces:
                try:
                    events = splitter.push(piece)
                except TooLarge:
                    raise EngineMalformed from None
                for event in events:
                    yield event

    # --- From here on: the supervisor's thread.

    async def _check(self) -> None:
        await self._client.get(PATH_HEALTH)

    async def _examine(self) -> None:
        """Raises: EngineError while nobody answers, ConfigError when the wrong one does."""
        await self._check()
        try:
            version = read_version(await self._client.get(PATH_VERSION))
        except (EngineRefused, EngineMalformed):
            raise self._wrong("engine.server", f"does not answer as {self._settings.server} does") from None
        if version != self._settings.version:
            said = version if version.isprintable() and len(version) <= 64 else "something else"
            raise self._wrong(
                "engine.version", f"the server says {said}; set it so if that is meant, and pin the new manifest"
            )
        try:
            models = read_models(await self._client.get(PATH_MODELS))
        except EngineRefused:
            raise self._wrong("engine.api_key_file", "holds no key that the server takes") from None
        except EngineMalformed:
            raise self._wrong("engine.server", f"does not answer as {self._settings.server} does") from None
        served = next((model for model in models if model.id == self._card.name), None)
        if served is None:
            raise self._wrong("model.name", "is not what the server calls its model (--served-model-name)")
        if served.max_model_len < self._card.context_tokens:
            raise self._wrong(
                "engine.context_tokens", f"the server holds {served.max_model_len}; set it so or less"
            )

    def _wrong(self, field: str, remedy: str) -> ConfigError:
        return ConfigError(self._file, field, remedy)

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
