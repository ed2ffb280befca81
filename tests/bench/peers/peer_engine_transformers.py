"""transformers' own `generate`. Arguments: threads, float32 or bfloat16, folder of the weights."""

from tokens import Prompt, perplexity, serve  # isort: split

import sys
import time

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

torch.set_num_threads(int(sys.argv[1]))
model = AutoModelForCausalLM.from_pretrained(sys.argv[3], dtype=getattr(torch, sys.argv[2])).eval()
model.generation_config = GenerationConfig()


@torch.inference_mode()
def generate(prompts: list[Prompt], tokens: int, at_s: list[float]) -> list[list[float]]:
    """All prompts that are due at once and of one length are one batch, which is done before the next begins."""
    began, times, done = time.perf_counter(), [], 0
    while done < len(prompts):
        batch = [i for i in range(done, len(prompts)) if at_s[i] == at_s[done]]
        time.sleep(max(0, at_s[done] - (time.perf_counter() - began)))
        taken = []

        def note(ids, scores, taken=taken, **_):
            taken.append(time.perf_counter() - began)
            return torch.zeros(len(ids), dtype=torch.bool)

        ids = torch.tensor([prompts[i]["ids"] for i in batch])
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=[note],
        )
        times += [taken] * len(batch)
        done += len(batch)
    return times


@torch.inference_mode()
def read(windows: list[list[int]]) -> float:
    told = []
    for window in windows:
        ids = torch.tensor([window])
        logprobs = model(ids).logits[0, :-1].float().log_softmax(-1)
        told += logprobs.gather(1, ids[0, 1:, None]).flatten().tolist()
    return perplexity(told)


serve(0, generate=generate, perplexity=read)
