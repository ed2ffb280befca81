"""A remote engine over the fake server, and requests to it."""

import asyncio
import hashlib
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from confide_enclave.engine import Delta, GenerationRequest, Sampling
from confide_enclave.engine.tokens import Tokens
from confide_enclave.remote.card import read_vocabulary
from confide_enclave.remote.engine import RemoteEngine
from confide_enclave.remote.settings import RemoteSettings
from confide_protocol.errors import EngineError

from tests.fakes import checkpoint
from tests.fakes import gguf as fake_gguf
from tests.unit.enclave.remote import fake

SALT = b"\7" * 32
QUICK = {"poll_interval_s": 0.02, "health_interval_s": 0.05, "restart_delay_s": 0.02, "start_timeout_s": 10.0}


@cache
def model() -> Path:
    """A toy's published directory; nothing here computes with it."""
    return checkpoint.write(Path(mkdtemp(prefix="confide-toy-")))


@cache
def gguf() -> Path:
    """The same toy in one file."""
    file = Path(mkdtemp(prefix="confide-toy-")) / "toy.gguf"
    file.write_bytes(fake_gguf.toy_llama())
    return file


def model_of(kind: str) -> Path:
    """Return the toy as this kind of server reads it."""
    return gguf() if kind == "llama.cpp" else model()


@cache
def tokens() -> Tokens:
    return Tokens(read_vocabulary(model()))


def spell(text: str) -> list[int]:
    """Return ids whose bytes are the text's, one each."""
    return spell_bytes(text.encode())


def spell_bytes(data: bytes) -> list[int]:
    return [next(i for i in range(tokens().size) if tokens().token_bytes(i) == bytes([byte])) for byte in data]


def settings(**changes: Any) -> RemoteSettings:
    return RemoteSettings(**{"kind": "openai", "version": fake.VERSION, **QUICK, **changes})


def started(fake: Mapping[str, str] | None = None, **changes: Any) -> RemoteSettings:
    """Settings of a fake server that the enclave starts itself; `fake` are the `FAKE_*` that choose its faults."""
    return settings(command=(program(fake or {}),), **changes)


def program(variables: Mapping[str, str], script: str = fake.__file__) -> str:
    """Return a program that runs this script: a command is one word, and no setting gives it such variables."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    text = f'#!/bin/sh\n{"".join(lines)}exec {sys.executable} {shlex.quote(script)} "$@"\n'
    file = _programs() / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not file.exists():
        file.write_text(text)
        file.chmod(0o700)
    return str(file)


@cache
def _programs() -> Path:
    return Path(mkdtemp(prefix="confide-fake-"))


@asynccontextmanager
async def connected(server: fake.Server, path: str | None = None, **changes: Any) -> AsyncIterator[RemoteEngine]:
    """Give an engine over this server, ready."""
    async with server.at(path) as url, opened(settings(url=url, server=server.kind, **changes)) as engine:
        yield engine


@asynccontextmanager
async def opened(chosen: RemoteSettings, weights: Path | None = None) -> AsyncIterator[RemoteEngine]:
    path = weights or model_of(chosen.server)
    engine = await asyncio.to_thread(RemoteEngine.load, path, "toy", chosen, "enclave.toml")
    try:
        yield engine
    finally:
        await engine.close()


def request(prompt: str = "hello", *, account: str = "", salt: bytes = SALT, **sampling: Any) -> GenerationRequest:
    given = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 64, "seed": 1, **sampling}
    return GenerationRequest(prompt, Sampling(**given), salt, account)


async def answer(engine: RemoteEngine, asked: GenerationRequest | None = None) -> list[Delta]:
    async with aclosing(engine.generate(asked or request())) as deltas:
        return [delta async for delta in deltas]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for what another process, or the engine's thread, does."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_it_says(engine: RemoteEngine, code: str, timeout_s: float = 8.0) -> list[str]:
    """Ask until the answer is this error, or none where `code` is empty; return the errors before."""
    before = []
    async with asyncio.timeout(timeout_s):
        while (said := await code_of(engine)) != code:
            before.append(said)
            await asyncio.sleep(0.02)
    return before


async def code_of(engine: RemoteEngine) -> str:
    try:
        await answer(engine)
    except EngineError as fault:
        return fault.code
    return ""
