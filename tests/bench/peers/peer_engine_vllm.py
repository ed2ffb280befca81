"""vLLM's engine for CPUs, without its server. Arguments: threads, dtype, folder of the weights.

Its environment says how many threads, and how much cache, it takes.
"""

from tokens import Prompt, perplexity, serve, together  # isort: split

import asyncio
import itertools
import os
import sys

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM


def main() -> None:
    arguments = AsyncEngineArgs(
        model=sys.argv[3],
        dtype=sys.argv[2],
        skip_tokenizer_init=True,
        max_model_len=2048,
        max_num_seqs=32,
        enable_prefix_caching=False,
        enable_log_requests=False,
    )
    loop, numbers = asyncio.new_event_loop(), itertools.count()
    asyncio.set_event_loop(loop)

    async def start() -> AsyncLLM:
        return AsyncLLM.from_engine_args(arguments)

    engine = loop.run_until_complete(start())

    def outputs(ids: object, **options: object):
        sampling = SamplingParams(temperature=0, ignore_eos=True, detokenize=False, **options)
        return engine.generate({"prompt_token_ids": ids}, sampling, str(next(numbers)))

    async def stream(prompt: Prompt, tokens: int):
        delta = RequestOutputKind.DELTA
        async for output in outputs(prompt["ids"], max_tokens=tokens, output_kind=delta):
            for token in output.outputs[0].token_ids:
                yield token

    def generate(prompts: list[Prompt], tokens: int, at_s: list[float]) -> list[list[float]]:
        return loop.run_until_complete(together(stream, prompts, tokens, at_s))

    async def logprobs(window: list[int]) -> list[float]:
        final = RequestOutputKind.FINAL_ONLY
        async for output in outputs(window, max_tokens=1, prompt_logprobs=0, output_kind=final):
            rows = zip(window[1:], output.prompt_logprobs[1:], strict=True)
            told = [row[token].logprob for token, row in rows]
        return told

    def read(windows: list[list[int]]) -> float:
        return perplexity([each for window in windows for each in loop.run_until_complete(logprobs(window))])

    serve(int(os.environ["VLLM_CPU_KVCACHE_SPACE"]) << 30, generate=generate, perplexity=read)


if __name__ == "__main__":
    main()
