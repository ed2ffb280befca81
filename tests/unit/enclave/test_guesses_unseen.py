"""Guesses that come true change when an answer's bytes come, and neither their sizes nor in how many pieces."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from confide_enclave.engine import Delta, GenerationRequest
from confide_enclave.engine.card import EngineLimits
from confide_enclave.engine.torch_engine import TorchEngine

from tests.fakes import gguf as fake
from tests.unit.enclave.support import Node, Opened, Sealed

pytestmark = pytest.mark.anyio
LIMITS = EngineLimits(max_sequences=2, context_tokens=fake.CONTEXT, threads=1, prefix_tokens=0)
# Some of it repeats, and some is drawn.
RULE = {"type": "regex", "pattern": "([a-f] over the moon, ){40}"}
CHAT = {"model": "toy", "messages": [{"role": "user", "content": "cow"}], "seed": 1, "response_format": RULE}


class Watched(TorchEngine):
    """Counts its steps; guesses as it is asked to, or as the test says."""

    steps = 0
    insisted: bool | None = None

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        wanted = request if self.insisted is None else replace(request, speculate=self.insisted)
        async for delta in super().generate(wanted):
            yield delta

    def _step(self) -> None:
        self.steps += 1
        super()._step()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Watched]:
    path = tmp_path / "toy.gguf"
    path.write_bytes(fake.toy_llama(5))
    engine = Watched.load(path, "toy", LIMITS)
    assert isinstance(engine, Watched)
    yield engine
    await engine.close()


async def ask(engine: Watched, shape: str, body: dict) -> tuple[Opened, list[int], int]:
    """Return the answer, the sizes of its pieces as the gateway sees them, and how many steps it took."""
    node, engine.steps = Node(engine), 0
    sealed = Sealed(node, await node.statement_digest(), {**CHAT, **body}, shape=shape)
    answer = await sealed.send(node)
    return sealed.open(answer), [len(piece) for piece in answer.pieces], engine.steps


def said(opened: Opened, stream: bool) -> str:
    return opened.text if stream else opened.json["choices"][0]["message"]["content"]


@pytest.mark.parametrize("tokens", [41, 64, 150])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("shape", ["bucketed", "none"])
async def test_sizes_do_not_tell(engine: Watched, shape: str, stream: bool, tokens: int) -> None:
    """Even an engine that guesses where the shape says that it must not: the same pieces, in fewer steps."""
    body = {"stream": stream, "max_tokens": tokens}
    engine.insisted = False
    plain, sizes, steps = await ask(engine, shape, body)
    engine.insisted = True
    guessed, sizes_guessed, steps_guessed = await ask(engine, shape, body)
    assert sizes_guessed == sizes
    assert said(guessed, stream) == said(plain, stream) != ""
    assert guessed.claims.completion_tokens == plain.claims.completion_tokens
    assert steps_guessed < steps
    assert (len(sizes) > tokens // 8) if stream else (len(sizes) <= 3)


@pytest.mark.parametrize(("shape", "stream", "shows"), [("bucketed", True, False), ("bucketed", False, True)])
async def test_nor_does_the_pace_of_a_shaped_stream(engine: Watched, shape: str, stream: bool, shows: bool) -> None:
    """There a request's own wish is not followed: not a step is saved. A body comes at once, and may be early."""
    _, _, steps = await ask(engine, shape, {"stream": stream, "max_tokens": 41, "speculate": False})
    _, _, wished = await ask(engine, shape, {"stream": stream, "max_tokens": 41, "speculate": True})
    assert (wished < steps) is shows
