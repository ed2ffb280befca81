"""llama-cpp-python on the GGUF file itself. Arguments: threads, -, the file. The binding has no batches."""

from tokens import Prompt, one_by_one, perplexity, serve  # isort: split

import sys

import numpy as np
from llama_cpp import Llama

CONTEXT = 2048
settings = {"model_path": sys.argv[3], "n_threads": int(sys.argv[1]), "n_threads_batch": int(sys.argv[1])}
model = Llama(n_ctx=CONTEXT, verbose=False, **settings)


def stream(prompt: Prompt, tokens: int):
    model.reset()
    drawn = model.generate(prompt["ids"], top_k=1, temp=0.0)
    for _ in range(tokens):
        yield next(drawn)


def read(windows: list[list[int]]) -> float:
    reader = Llama(n_ctx=len(windows[0]), n_batch=len(windows[0]), logits_all=True, verbose=False, **settings)
    told = []
    for window in windows:
        reader.reset()
        reader.eval(window)
        logits = np.array(reader.scores[: len(window) - 1], dtype=np.float64)
        logits -= logits.max(-1, keepdims=True)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        told += logprobs[np.arange(len(window) - 1), window[1:]].tolist()
    return perplexity(told)


layers, width = (int(model.metadata[f"llama.{key}"]) for key in ("block_count", "embedding_length"))
heads, kv_heads = (int(model.metadata[f"llama.attention.{key}"]) for key in ("head_count", "head_count_kv"))
serve(CONTEXT * layers * 2 * (width // heads * kv_heads) * 2, generate=one_by_one(stream), perplexity=read)
