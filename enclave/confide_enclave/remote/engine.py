"""A server in another process behind the seam: our tokens, its arithmetic."""

import asyncio
import hashlib
import hmac
import secrets
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from confide_protocol.errors import ConfigError, ContextTooLong, EngineError, LocalStateError, TooLarge
from confide_protocol.sse import EventSplitter

from confide_enclave.engine import Delta, Engine, GenerationRequest, ModelCard, Sampling
from confide_enclave.engine.fairness import Admission
from confide_enclave.engine.grammar import Grammars
from confide_enclave.engine.tokens import Tokens
from confide_enclave.errors import Refusal, UnknownToken
from confide_enclave.remote.answer import Answer
from confide_enclave.remote.card import digest_weights, read_card, read_vocabulary
from confide_enclave.remote.chunk import MAX_LOGPROBS
from confide_enclave.remote.errors import (
    EngineFailed,
    EngineForbidden,
    EngineLoading,
    EngineLost,
    EngineMalformed,
    EngineRefused,
)
from confide_enclave.remote.http import Client
from confide_enclave.remote.launch import prepare
from confide_enclave.remote.process import Supervisor
from confide_enclave.remote.reading import event_limit
from confide_enclave.remote.servers import SERVERS
from confide_enclave.remote.settings import RemoteSettings
from confide_enclave.settings import load_gateway_secret

_LABEL_SALT: Final = b"confide.engine-cache.v1"
_SALT_BYTES: Final = 32
PROBE_BYTES: Final = 64 << 10
log = structlog.get_logger(__name__)


class RemoteEngine(Engine):
    """Not replayable: the server rounds as its neighbours have it, so its mode is `fast`."""

    def __init__(self, card: ModelCard, tokens: Tokens, weights: Path, settings: RemoteSettings, file: str) -> None:
        self._card, self._tokens, self._settings, self._file = card, tokens, settings, file
        self._grammars = Grammars(tokens)
        self._salt_key = secrets.token_bytes(_SALT_BYTES)
        self._admitted = Admission(settings.max_account_requests, settings.max_requests)
        self._server = SERVERS[settings.server]
        self._follows_grammars = self._server.grammars == "always"
        self._folder: str | None = None
        if settings.url is None:
            self._folder, url, key, launch = prepare(settings, card, weights, partial(self._verify, weights))
        else:
            url, path, launch = settings.url, settings.api_key_file, None
            key = "" if path is None else load_gateway_secret(Path(path), "engine.api_key_file").decode()
        self._client = Client(url, key, settings.connect_timeout_s)
        self._supervisor = Supervisor(settings, launch, self._examine, self._check, file)

    @classmethod
    def load(cls, weights: Path, name: str, settings: RemoteSettings, file: str) -> "RemoteEngine":
        """Start the server, or find it, and return when it is ready. Raises: ConfigError.

        weights: what the server reads, from which come our tokenizer and template too. `file`
        names the configuration in messages.
        """
        vocabulary = read_vocabulary(weights)
        card = read_card(weights, name, settings, vocabulary)
        if not card.engine["tested"]:
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

    @property
    def ready(self) -> bool:
        return self._supervisor.state == "ready"

    @property
    def failed(self) -> bool:
        return self._supervisor.state == "failed"

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
                    if (chunk := self._server.wire.read(event)) is None:
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
        self._check_can(request)
        if any(token >= tokens.size for token, _ in sampling.logit_bias):
            raise UnknownToken
        prompt = tokens.encode(request.prompt, request.tools, request.thinking)
        context = self._card.context_tokens
        if (room := context - len(prompt)) < 1:
            raise ContextTooLong(f"the prompt has {len(prompt)} tokens; the context holds {context}")
        limit = min(sampling.max_tokens, room)
        grammar = self._grammars.start(sampling.grammar) if sampling.grammar else None
        salt = self._derive_salt(request.cache_salt)
        body = self._server.wire.write(name, prompt, sampling, limit, tokens.end_ids, salt)
        max_bytes = self._settings.max_event_bytes or event_limit(len(prompt), limit, sampling.logprobs)
        repeats = self._server.repeats_prompt
        return Answer(name, prompt, limit, sampling, tokens, grammar, repeats_prompt=repeats), body, max_bytes

    def _check_can(self, request: GenerationRequest) -> None:
        """Raises: Refusal naming what this server cannot do, or does otherwise than it means here."""
        sampling, param = request.sampling, ""
        if sampling.logprobs is not None:
            if sampling.logprobs > MAX_LOGPROBS:
                raise LocalStateError("sampling is out of range")
            param = "best_of" if sampling.candidates > sampling.choices else "logprobs"
            if not self._server.logprobs:
                reason = "is not to be had here: this engine does not say which tokens they are of."
                raise _unsupported(param, reason)
        if not sampling.grammar:
            return
        if param:
            raise _unsupported(param, "cannot go with a format or with tools here: this engine counts after them.")
        if not self._follows_grammars:
            param = "tools" if request.tools else "response_format"
            raise _unsupported(param, "is not to be had here: this engine was built without llguidance.")

    def _derive_salt(self, salt: bytes) -> str:
        """Return 64 hex digits that the tenant's salt decides and does not show; random ones where it has none."""
        if len(salt) != _SALT_BYTES or not any(salt):
            return secrets.token_hex(_SALT_BYTES)
        return hmac.digest(self._salt_key, _LABEL_SALT + salt, hashlib.sha256).hex()

    async def _events(self, body: bytes, max_bytes: int) -> AsyncGenerator[bytes, None]:
        splitter = EventSplitter(max_bytes)
        async with aclosing(self._client.post(self._server.wire.path, body)) as pieces:
            async for piece in pieces:
                try:
                    events = splitter.push(piece)
                except TooLarge:
                    raise EngineMalformed from None
                for event in events:
                    yield event

    # --- From here on: the supervisor's thread.

    def _verify(self, weights: Path) -> None:
        """Raises: ConfigError when the files are not the manifest's any more."""
        if digest_weights(weights, self._settings) != self._card.weights_digest:
            remedy = "were changed since the manifest was made; put them back, or reload for a new manifest"
            raise ConfigError(str(weights), "model.weights", remedy)

    async def _check(self) -> None:
        await self._client.get(self._server.wire.health)

    async def _examine(self) -> None:
        """Raises: EngineError while nobody answers, ConfigError when the wrong one does."""
        server = self._server
        await self._check()
        try:
            identity = await server.wire.identify(self._client.get)
        except EngineForbidden:
            raise self._wrong("engine.api_key_file", "holds no key that the server takes") from None
        except (EngineRefused, EngineMalformed):
            raise self._wrong("engine.server", f"does not answer as {server.name} does") from None
        if identity.version != self._settings.version:
            said = identity.version
            shown = said if said.isprintable() and len(said) <= 64 else "something else"
            raise self._wrong(
                "engine.version", f"the server says {shown}; set it so if that is meant, and pin the new manifest"
            )
        if identity.shares:
            raise self._wrong("engine.url", identity.shares)
        context = dict(identity.models).get(self._card.name)
        if context is None:
            raise self._wrong(
                "model.name", "is not what the server calls its model (--served-model-name; llama-server: --alias)"
            )
        if (holds := context - server.spare_tokens) < self._card.context_tokens:
            raise self._wrong("engine.context_tokens", f"the server holds {holds}; set it so or less")
        if server.grammars == "asked":
            if not await self._draws("", 0):
                raise self._wrong("engine.server", f"does not answer as {server.name} does")
            self._follows_grammars = await self._draws('start: "a"', b"a"[0])
            if not self._follows_grammars:
                log.warning("engine.no_grammars")

    async def _draws(self, grammar: str, byte: int) -> bool:
        """Let it draw one token; say whether it does, and one that spells the byte where a grammar wants that.

        Raises: EngineError when it is not there.
        """
        tokens, prompt = self._tokens, [min(self._tokens.end_ids)]
        body = self._server.wire.write(
            self._card.name, prompt, Sampling(0.0, 1.0, 1, 1, grammar=grammar), 1, tokens.end_ids, ""
        )
        try:
            async with aclosing(self._events(body, PROBE_BYTES)) as events:
                chunk = self._server.wire.read(await anext(events, b""))
        except (EngineRefused, EngineMalformed):
            return False
        if chunk is None or any(token >= tokens.size for token in chunk.ids):
            return False
        return not grammar or b"".join(map(tokens.token_bytes, chunk.ids)) == bytes([byte])

    def _wrong(self, field: str, remedy: str) -> ConfigError:
        return ConfigError(self._file, field, remedy)

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _unsupported(param: str, reason: str) -> Refusal:
    return Refusal(400, f"'{param}' {reason}", param=param, code="unsupported_parameter")
