"""What guessing ahead brings: one request at a time, with and without it, in turns; the answers must be the same.

Edits repeat much of their prompt, chat repeats little. Without guesses a step brings one token.
"""

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass

from confide_enclave.engine import ChatMessage, GenerationRequest, Sampling
from confide_enclave.engine.card import EngineLimits, default_weights
from confide_enclave.engine.torch_engine import TorchEngine

from tests.bench import Row, ours, versus

CODE = """def read_rows(path, limit):
    rows = []
    with open(path) as handle:
        for number, line in enumerate(handle):
            if number >= limit:
                break
            parts = line.strip().split(",")
            if len(parts) != 3:
                continue
            name, age, city = parts
            rows.append({"name": name, "age": int(age), "city": city})
    return rows

def average_age(rows):
    total = 0
    for row in rows:
        total += row["age"]
    return total / len(rows)
"""
TEXT = (
    "The harbour of Lindby was built in 1874 by the engineer Anna Holm. It has two stone piers, each 210 metres "
    "long, and a lighthouse that was added in 1891. In winter the ferries to the island of Vesk leave every two "
    "hours; in summer they leave every thirty minutes. The fish market on the north pier opens at five in the "
    "morning and closes at noon. The museum in the old customs house shows models of ships that were built in the "
    "yard between 1880 and 1932, when the yard closed."
)
PROMPTS = {
    "edit": (
        f"Add a docstring to each function and repeat the code:\n```python\n{CODE}```",
        f"Repeat the following text word by word, and change nothing:\n\n{TEXT}",
        f"Context: {TEXT}\n\nQuestion: When do the ferries leave? What does the museum show? Quote the text.",
    ),
    "chat": (
        "Explain how a rainbow forms to a child.",
        "Give me ideas for a birthday party at home.",
        "Describe your favourite season and why people like it.",
    ),
}
MAX_TOKENS = 128


@dataclass(frozen=True)
class Run:
    text: str
    tokens: int
    steps: int
    seconds: float


def rows(quick: bool) -> list[Row]:
    return asyncio.run(_measure(rounds=1 if quick else 3))


async def _measure(rounds: int) -> list[Row]:
    engine = TorchEngine.load(default_weights(), "model", EngineLimits(max_sequences=1, context_tokens=1_024))
    found: list[Row] = []
    try:
        for kind, prompts in PROMPTS.items():
            best: dict[tuple[str, bool], Run] = {}
            for _ in range(rounds):
                for prompt in prompts:
                    for guesses in (False, True):
                        run = await _run(engine, prompt, guesses)
                        before = best.setdefault((prompt, guesses), run)
                        if run.text != best[prompt, False].text:
                            raise AssertionError("speculation changed an answer")
                        best[prompt, guesses] = min(run, before, key=lambda each: each.seconds)
            plain, guessed = ([best[prompt, way] for prompt in prompts] for way in (False, True))
            found.append(
                versus(f"speculation.{kind}", _speed(guessed), "tok/s", "without speculation", _speed(plain))
            )
            tokens, steps = (sum(getattr(run, name) for run in guessed) for name in ("tokens", "steps"))
            found.append(ours(f"speculation.{kind}_tokens_per_step", tokens / steps, "tokens"))
    finally:
        await engine.close()
    return found


async def _run(engine: TorchEngine, prompt: str, guesses: bool) -> Run:
    """Answer once; time and steps count from the first token on."""
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=MAX_TOKENS, seed=0)
    request = GenerationRequest([ChatMessage("user", prompt)], sampling, bytes(32), speculate=guesses)
    steps, step, text, began_s, count = 0, engine._step, "", 0.0, 0

    def counted() -> None:
        nonlocal steps
        steps += 1
        step()

    engine._step = counted  # type: ignore[method-assign]
    try:
        async with aclosing(engine.generate(request)) as deltas:
            async for delta in deltas:
                if not count:
                    began_s, steps = time.perf_counter(), 0
                text, count = text + delta.text, delta.completion_tokens
    finally:
        engine._step = step  # type: ignore[method-assign]
    return Run(text, count - 1, steps, time.perf_counter() - began_s)


def _speed(runs: list[Run]) -> float:
    return sum(run.tokens for run in runs) / sum(run.seconds for run in runs)
