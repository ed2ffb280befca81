"""Our engine, as the enclave runs it. Arguments: threads, exact or fast, guesses or none."""

from tokens import Prompt, serve, together  # isort: split

import asyncio
import sys

import torch
from confide_enclave.engine import GenerationRequest, Sampling
from confide_enclave.engine.card import EngineLimits, default_weights, open_weights
from confide_enclave.engine.quantize import Subject
from confide_enclave.engine.torch_engine import TorchEngine

mode, guesses = sys.argv[2], sys.argv[3] == "guesses"
scheme = "w8a8" if mode == "exact" else "w8a16"
limits = EngineLimits(
    mode=mode, scheme=scheme, threads=int(sys.argv[1]), max_sequences=32, context_tokens=2048, cache_tokens=16_384
)
engine = TorchEngine.load(default_weights(), "bench", limits)
loop = asyncio.new_event_loop()


async def stream(prompt: Prompt, tokens: int):
    request = GenerationRequest(prompt["text"], Sampling(0, 1, tokens, seed=0), bytes(32), speculate=guesses)
    async for delta in engine.generate(request):
        yield delta


def generate(prompts: list[Prompt], tokens: int, at_s: list[float]) -> list[list[float]]:
    return loop.run_until_complete(together(stream, prompts, tokens, at_s))


def read(windows: list[list[int]]) -> float:
    """In the thread that asks, which keeps to itself: helpers of its own would slow those of the engine's down."""
    torch.set_num_threads(1)
    subject = Subject(open_weights(default_weights(), limits), torch.bfloat16)
    return subject.quality([token for window in windows for token in window]).perplexity


# Its cache becomes resident as it is written.
serve(0, generate=generate, perplexity=read)
