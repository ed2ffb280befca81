"""Run the signed answers of a crowded enclave again, each alone, and count those that come out bit for bit."""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from confide.replay import compare
from confide.session import Receipt
from confide_attestation.result import Check, Outcome
from confide_enclave import replay
from confide_enclave.engine.card import EngineLimits, default_weights
from confide_enclave.engine.torch_engine import TorchEngine

from tests.conformance.crowd import Run, crowd
from tests.conformance.score import percent
from tests.fakes import gguf

# Of each run: batch, rows of a prompt in one step, threads; then the threads of the re-run.
SETTINGS = (
    ({"max_sequences": 8, "prefill_chunk_tokens": 16, "threads": 1}, 2),
    ({"max_sequences": 16, "prefill_chunk_tokens": 5, "threads": 2}, 1),
    ({"max_sequences": 3, "prefill_chunk_tokens": 64, "threads": 4}, 1),
)
TOY_CONTEXT = 256
MAX_SHOWN = 12


@dataclass
class Tally:
    """What came of some re-runs. `holes` count the checks that did not pass."""

    answers: int = 0
    same: int = 0
    transcripts: int = 0
    streamed: int = 0
    sampled: int = 0
    left: int = 0
    holes: Counter[str] = field(default_factory=Counter)

    def count(self, receipt: Receipt, checks: Sequence[Check]) -> None:
        passed = {check.id for check in checks if check.outcome is Outcome.PASS}
        request = json.loads(receipt.disclosure.request_body)
        self.answers += 1
        self.streamed += bool(request.get("stream"))
        self.sampled += request["temperature"] != 0
        failed = [check for check in checks if check.outcome is Outcome.FAIL]
        self.same += "rerun_answer" in passed and not failed
        self.transcripts += "rerun_transcript" in passed
        self.holes.update(f"{check.id}: {check.detail}" for check in failed)

    def line(self, name: str, took_s: float) -> str:
        return (
            f"replay of {name}: {self.answers:,} signed answers ({self.streamed:,} streamed, {self.sampled:,} "
            f"sampled; {self.left:,} more broken off beside them), {self.same:,} came out again: "
            f"{percent(self.same, self.answers)}; {self.transcripts:,} with the signed transcript; {took_s:.0f} s"
        )


def replay_crowd(weights: Path, name: str, limits: EngineLimits, answers: int, threads: int, tally: Tally) -> None:
    """Make a crowd and run its answers again on one engine, one at a time."""
    run = crowd(weights, name, limits, answers, seed=limits.max_sequences)
    tally.left += run.left
    asyncio.run(_replay(weights, name, run, threads, tally))
    # Once for each crowd as an auditor does it, with all that comes before the answer.
    receipt = run.receipts[0]
    asked = receipt.disclosure
    request = asked.method, asked.path, asked.request_body
    checks, answer = replay.replay(run.manifest, receipt.claims, *request, weights, threads=threads)
    if answer is None or any(check.outcome is not Outcome.PASS for check in checks):
        tally.holes.update(f"{check.id}: {check.detail}" for check in checks if check.outcome is not Outcome.PASS)


async def _replay(weights: Path, name: str, run: Run, threads: int, tally: Tally) -> None:
    alone = run.limits.model_copy(update={"max_sequences": 1, "threads": threads})
    engine = TorchEngine.load(weights, name, alone)
    try:
        for receipt in run.receipts:
            asked = receipt.disclosure
            request = asked.method, asked.path, asked.request_body
            checks, answer = await replay.rerun(engine, run.manifest, receipt.claims, *request)
            found = [] if answer is None else compare(receipt.claims, asked, answer)
            tally.count(receipt, [*checks, *found])
    finally:
        await engine.close()


def replay_toy(answers: int) -> Tally:
    """Share the answers out over the settings. The model has random weights; what it says differs all the more."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "toy.gguf")
        weights.write_bytes(gguf.toy_llama(5))
        for number, (settings, threads) in enumerate(SETTINGS):
            share = answers // len(SETTINGS) + (number < answers % len(SETTINGS))
            limits = EngineLimits(context_tokens=TOY_CONTEXT, **settings)
            replay_crowd(weights, "toy", limits, share, threads, tally)
    return tally


def replay_default(answers: int) -> Tally:
    tally = Tally()
    limits = EngineLimits(context_tokens=512, max_sequences=6, prefill_chunk_tokens=32)
    replay_crowd(default_weights(), "default", limits, answers, 1, tally)
    return tally


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.replay", description=__doc__)
    parser.add_argument("--answers", type=int, default=1000, metavar="N", help="of a toy model (default: 1000)")
    parser.add_argument("--default", type=int, default=12, metavar="N", help="of the default model (default: 12)")
    options = parser.parse_args(given)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    tallies = []
    for name, make, answers in (
        ("a toy model", replay_toy, options.answers),
        ("the default model", replay_default, options.default),
    ):
        if answers:
            began_s = time.monotonic()
            tallies.append(make(answers))
            print(tallies[-1].line(name, time.monotonic() - began_s), flush=True)
            for hole, count in tallies[-1].holes.most_common(MAX_SHOWN):
                print(f"{name}: {count} x {hole}")
    return 0 if all(each.same == each.answers and not each.holes for each in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
