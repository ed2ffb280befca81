"""Ask an engine as the API does, and take all that it says."""

from contextlib import aclosing

from confide_enclave.engine import Delta, Engine, GenerationRequest, Sampling


def ask(prompt: str = "hello", max_tokens: int = 20, **sampling) -> GenerationRequest:
    """Ask greedily, unless the parameters say otherwise."""
    values = {"temperature": 0.0, "top_p": 1.0, "seed": 1} | sampling
    return GenerationRequest(prompt, Sampling(max_tokens=max_tokens, **values), bytes(32))


async def collect(engine: Engine, asked: GenerationRequest) -> list[Delta]:
    async with aclosing(engine.generate(asked)) as deltas:
        return [delta async for delta in deltas]
