"""The engine end to end, of a published shape with random weights: tokens a second, a step beside its byte bound.

The work is mini-sglang's: many prompts and answers of any length between two bounds, all there at once.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from confide_enclave.engine import GenerationRequest, Sampling
from confide_enclave.engine.card import EngineLimits, make_card
from confide_enclave.engine.convert import Scheme
from confide_enclave.engine.pages import PAGE_TOKENS, pages_for
from confide_enclave.engine.runner import Runner
from confide_enclave.engine.scheduler import Step
from confide_enclave.engine.sequence import Sequence as Asked
from confide_enclave.engine.tokens import TextStream, Tokens
from confide_enclave.engine.torch_engine import TorchEngine, _build_runner

from tests.bench_gpu import shapes
from tests.bench_gpu.shapes import Shape
from tests.bench_gpu.timing import clear

SCHEMES: tuple[Scheme, ...] = ("w8a8", "w8a16", "w4a16", "none")
PEER = "transformers"
# What is measured where nothing is named.
ENGINES = (PEER, "w8a8", "w8a16", "none")
_STEPS = 25


class Work(NamedTuple):
    """Requests: tokens in, tokens out. Enough pages for all of them at once."""

    requests: list[tuple[int, int]]

    @classmethod
    def of(cls, count: int, least: int, most: int) -> "Work":
        draw = random.Random(0)
        return cls([(draw.randint(least, most), draw.randint(least, most)) for _ in range(count)])

    @property
    def context_tokens(self) -> int:
        return max(read + made for read, made in self.requests)

    @property
    def tokens(self) -> int:
        return sum(made for _, made in self.requests)


class DecodeStep(NamedTuple):
    """One token for each sequence: the time of a step, of its layers alone where a graph replays them, and bytes.

    bytes: of all weights that are read, and of all keys and values.
    """

    median_s: float
    layers_s: float | None
    bytes: int


class Result(NamedTuple):
    scheme: str
    made: int
    seconds: float
    step: DecodeStep


REAL = Work.of(256, 100, 1024)


def limits_for(scheme: Scheme, work: Work, device: str) -> EngineLimits:
    return EngineLimits(
        mode="exact" if scheme == "w8a8" else "fast",
        scheme=scheme,
        device=device,
        max_sequences=len(work.requests),
        max_account_requests=len(work.requests),
        context_tokens=max(PAGE_TOKENS, work.context_tokens + _STEPS),
        cache_tokens=PAGE_TOKENS * sum(pages_for(sum(request) + _STEPS) for request in work.requests),
        prefill_chunk_tokens=min(8192, max(256, work.context_tokens)),
        prefix_tokens=0,
        tenant_prefix_tokens=0,
        speculate="off",
    )


def measure(shape: Shape, scheme: Scheme, work: Work, device: str) -> Result:
    """Load, time a step of decoding for all of them, then answer all of them through the engine's own interface."""
    model, limits = shapes.make(shape, scheme), limits_for(scheme, work, device)
    has_head = "head.rows" in model.arrays
    weights = sum(x.nbytes for name, x in model.arrays.items() if not (has_head and name.startswith("embedding")))
    steps: list[DecodeStep] = []

    def build(pages: int) -> Runner:
        runner = _build_runner(model, limits, pages)
        halved = scheme == "none" and runner.pool.data.dtype == torch.bfloat16
        steps.append(time_step(runner, work, weights // (2 if halved else 1)))
        return runner

    engine = TorchEngine(make_card(model, shape.name, limits), Tokens(model.metadata), limits, build)
    engine.loaded.result()
    try:
        made, seconds = asyncio.run(_answer(engine, work))
    finally:
        asyncio.run(engine.close())
    return Result(scheme, made, seconds, steps[0])


def time_step(runner: Runner, work: Work, weight_bytes: int) -> DecodeStep:
    """Time steps that find every answer half made; what they leave in the cache is wiped."""
    asked = Sampling(temperature=0.0, top_p=1.0, max_tokens=_STEPS, seed=0)
    sequences, page = [], 0
    for read, made in work.requests:
        context = read + made // 2
        own = list(range(page, page := page + pages_for(context + _STEPS)))
        prompt = [5] * context
        one = Asked(prompt, asked, _STEPS, TextStream(()), deliver=lambda _: None, pages=own)
        one.computed = context - 1
        sequences.append(one)
    times = []
    for _ in range(_STEPS):
        began = time.perf_counter()
        for who, drawn in runner.run(Step(tuple((each, 1) for each in sequences))):
            assert drawn is not None
            who.generated.append(drawn.token)
        times.append(time.perf_counter() - began)
    contexts = sum(each.computed for each in sequences)
    row = runner.pool.data[:, :, 0].nbytes
    if runner.pool.data.dtype == torch.int8:
        row += runner.pool.tops[..., 0].nbytes
    layers_s = _time_layers(runner, len(sequences), max(each.computed for each in sequences))
    runner.wipe(list(range(page)))
    return DecodeStep(statistics.median(times[3:]), layers_s, weight_bytes + contexts * row)


def _time_layers(runner: Runner, rows: int, context: int) -> float | None:
    """Replay the graph that the last step came from, back to back: it computes the same again."""
    graphs = getattr(runner, "_graphs", ())
    graphs = [graph for graph in graphs if graph.shape.rows >= rows and graph.shape.context >= context]
    if not graphs or runner.pool.data.device.type != "cuda":
        return None
    replay, ends = graphs[0]._replay, [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    replay()
    ends[0].record()
    for _ in range(_STEPS):
        replay()
    ends[1].record()
    torch.cuda.synchronize()
    return ends[0].elapsed_time(ends[1]) / _STEPS / 1e3


async def _answer(engine: TorchEngine, work: Work) -> tuple[int, float]:
    draw = random.Random(1)

    async def one(number: int, read: int, made: int) -> int:
        request = GenerationRequest(
            "".join(draw.choices("qwxz", k=read)),
            Sampling(temperature=1.0, top_p=1.0, max_tokens=made, seed=number),
            cache_salt=bytes(32),
            speculate=False,
        )
        count = 0
        async for delta in engine.generate(request):
            count = delta.completion_tokens
        return count

    began = time.perf_counter()
    counts = await asyncio.gather(*(one(number, *lengths) for number, lengths in enumerate(work.requests)))
    return sum(counts), time.perf_counter() - began


def transformers_tokens_a_second(shape: Shape, work: Work, device: str) -> float:
    """Answer the same requests with transformers' `generate`: one batch, padded on the left, to the longest answer.

    Only tokens that were asked for count. Raises: ImportError.
    """
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.hidden,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
    )
    with torch.device(device):
        model = Qwen3ForCausalLM(config).to(torch.bfloat16 if device == "cuda" else torch.float32).eval()
    model.generation_config = GenerationConfig()
    longest = max(read for read, _ in work.requests)
    ids = torch.full((len(work.requests), longest), 5, device=device)
    mask = torch.zeros_like(ids)
    for row, (read, _) in enumerate(work.requests):
        mask[row, longest - read :] = 1
    with torch.inference_mode():
        model.generate(
            ids[:2, -16:], attention_mask=mask[:2, -16:], max_new_tokens=2, do_sample=False, pad_token_id=0
        )
        began = time.perf_counter()
        most = max(made for _, made in work.requests)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=most, do_sample=False, pad_token_id=0)
        assert out.shape[1] == longest + most
    return work.tokens / (time.perf_counter() - began)


def report(
    shape: Shape, work: Work, device: str, copy_bytes_s: float, engines: Sequence[str] = ENGINES
) -> Iterator[str]:
    """Make a table in Markdown, line by line. What breaks says so in its row."""
    lengths = [length for request in work.requests for length in request]
    asked = f"{len(work.requests)} requests of {min(lengths)} to {max(lengths)} tokens, answers as long"
    yield f"{shape.name}'s shape, random weights, {asked}:"
    yield ""
    yield "| engine | tokens/s | times transformers | step | its layers alone | byte bound | step / bound |"
    yield "|---|---|---|---|---|---|---|"
    peer = None
    if PEER in engines:
        try:
            peer = transformers_tokens_a_second(shape, work, device)
            said = f"{peer:.0f}"
        except Exception as problem:  # noqa: BLE001 - a peer's failure is its own, and is printed
            said = f"not measured: {type(problem).__name__}: {str(problem)[:80]}"
        yield f"| transformers' generate | {said} | 1 | | | | |"
    for scheme in SCHEMES:
        if scheme in engines:
            clear()
            try:
                yield _row(measure(shape, scheme, work, device), peer, copy_bytes_s)
            except Exception as problem:  # noqa: BLE001 - printed; the others go on
                yield f"| ours, {scheme} | BROKE: {type(problem).__name__}: {str(problem)[:200]} | | | | | |"


def _row(result: Result, peer: float | None, copy_bytes_s: float) -> str:
    rate, step = result.made / result.seconds, result.step
    bound = step.bytes / copy_bytes_s
    layers = f"{step.layers_s * 1e3:.2f} ms" if step.layers_s else ""
    times = f"{rate / peer:.1f}" if peer else ""
    return (
        f"| ours, {result.scheme} | {rate:.0f} | {times} | {step.median_s * 1e3:.2f} ms | {layers}"
        f" | {bound * 1e3:.2f} ms | {step.median_s / bound:.2f} |"
    )
