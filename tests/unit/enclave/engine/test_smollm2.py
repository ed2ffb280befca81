"""The packaged model itself: it answers in English, alone and in company."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from confide_enclave.engine import ChatMessage, Delta, GenerationRequest, Sampling
from confide_enclave.engine.card import EngineLimits, default_weights, read_card
from confide_enclave.engine.torch_engine import TorchEngine

pytestmark = pytest.mark.anyio
LIMITS = EngineLimits(max_sequences=4, context_tokens=512, prefill_chunk_tokens=64)
PARIS = "What is the capital of France? Answer in one sentence."


@pytest.fixture(scope="module")
def engine() -> Iterator[TorchEngine]:
    engine = TorchEngine.load(default_weights(), "smollm2-135m-instruct", LIMITS)
    yield engine
    asyncio.run(engine.close())


async def ask(engine: TorchEngine, prompt: str, sampling: Sampling, *, chat: bool = True) -> tuple[str, Delta]:
    asked = GenerationRequest([ChatMessage("user", prompt)] if chat else prompt, sampling, bytes(32))
    async with aclosing(engine.generate(asked)) as generated:
        deltas = [delta async for delta in generated]
    return "".join(delta.text for delta in deltas), deltas[-1]


async def test_capital_of_france(engine: TorchEngine) -> None:
    """Greedy, it knows."""
    answer, last = await ask(engine, PARIS, Sampling(0, 1, 40, 0))
    assert "Paris" in answer
    assert (last.prompt_tokens, last.finish_reason) == (42, "stop")
    completion, last = await ask(engine, "The capital of France is", Sampling(0, 1, 8, 0), chat=False)
    assert "Paris" in completion
    assert (last.prompt_tokens, last.completion_tokens) == (5, 8)


async def test_company(engine: TorchEngine) -> None:
    """Six at once on four places, prompts longer than a chunk among them, and each is answered to the point."""
    filler = "Here is some text that does not matter. " * 20
    prompts = [PARIS, filler + PARIS, "Name the capital of France.", filler + PARIS, PARIS, PARIS]
    answers = await asyncio.gather(*(ask(engine, prompt, Sampling(0, 1, 40, 0)) for prompt in prompts))
    assert sum("Paris" in answer for answer, _ in answers) >= 5


async def test_seed(engine: TorchEngine) -> None:
    """Sampled with one seed twice, alone: the same text; it reads as text and differs with another seed."""
    first, again, other = [
        (await ask(engine, "Tell me a short story.", Sampling(0.9, 0.95, 24, seed)))[0] for seed in (1, 1, 2)
    ]
    assert first == again != other
    assert first.isprintable()


def test_card_is_the_one_read_before_loading(engine: TorchEngine) -> None:
    """What the manifest said before the weights were loaded is what runs."""
    assert engine.card == read_card(default_weights(), "smollm2-135m-instruct", LIMITS)
