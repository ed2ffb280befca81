"""Run the signed answers of a crowded enclave again, each alone, and count those that come out bit for bit."""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
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

# Of each crowd: batch, rows of a prompt in one step, threads; then threads and instruction set of the re-run.
SETTINGS = (
    ({"max_sequences": 8, "prefill_chunk_tokens": 16, "threads": 1}, 2, "default"),
    ({"max_sequences": 16, "prefill_chunk_tokens": 5, "threads": 2}, 1, "avx2"),
    ({"max_sequences": 3, "prefill_chunk_tokens": 64, "threads": 4, "speculate": "off"}, 1, ""),
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

    def __iadd__(self, other: "Tally") -> "Tally":
        for name in ("answers", "same", "transcripts", "streamed", "sampled", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.holes += other.holes
        return self

    def line(self, name: str, took_s: float) -> str:
        return (
            f"replay of {name}: {self.answers:,} signed answers ({self.streamed:,} streamed, {self.sampled:,} "
            f"sampled; {self.left:,} more broken off beside them), {self.same:,} came out again: "
            f"{percent(self.same, self.answers)}; {self.transcripts:,} with the signed transcript; {took_s:.0f} s"
        )


def replay_crowd(weights: Path, name: str, limits: EngineLimits, answers: int, threads: int, isa: str) -> Tally:
    """Make a crowd and run its answers again on one engine, one at a time.

    `isa`: which vector instructions torch may use for that, in a process of its own; empty to stay in this one.
    """
    run, tally = crowd(weights, name, limits, answers, seed=limits.max_sequences), Tally()
    tally.left = run.left
    if isa:
        with _instructions(isa), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere:
            found = elsewhere.submit(rerun_all, weights, name, run, threads).result()
    else:
        found = rerun_all(weights, name, run, threads)
    for receipt, checks in zip(run.receipts, found, strict=True):
        tally.count(receipt, checks)
    # Once for each crowd as an auditor does it, with all that comes before the answer.
    receipt = run.receipts[0]
    checks, _ = replay.replay(run.manifest, receipt.claims, *_request(receipt), weights, threads=threads)
    tally.holes.update(f"{check.id}: {check.detail}" for check in checks if check.outcome is not Outcome.PASS)
    return tally


def rerun_all(weights: Path, name: str, run: Run, threads: int) -> list[list[Check]]:
    return asyncio.run(_rerun_all(weights, name, run, threads))


async def _rerun_all(weights: Path, name: str, run: Run, threads: int) -> list[list[Check]]:
    engine = TorchEngine.load(weights, name, replay.plain(run.limits, threads))
    found = []
    try:
        for receipt in run.receipts:
            checks, answer = await replay.rerun(engine, run.manifest, receipt.claims, *_request(receipt))
            compared = [] if answer is None else compare(receipt.claims, receipt.disclosure, answer)
            found.append([*checks, *compared])
    finally:
        await engine.close()
    return found


def _request(receipt: Receipt) -> tuple[str, str, bytes]:
    asked = receipt.disclosure
    return asked.method, asked.path, asked.request_body


@contextmanager
def _instructions(isa: str) -> Iterator[None]:
    """Have processes that start in this block use no other instructions; where there are none such, torch warns."""
    os.environ["ATEN_CPU_CAPABILITY"] = isa
    try:
        yield
    finally:
        del os.environ["ATEN_CPU_CAPABILITY"]


def replay_toy(answers: int, *, elsewhere: bool = True) -> Tally:
    """Share the answers out over the settings. The model has random weights; what it says differs all the more."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "toy.gguf")
        weights.write_bytes(gguf.toy_llama(5))
        for number, (settings, threads, isa) in enumerate(SETTINGS):
            share = answers // len(SETTINGS) + (number < answers % len(SETTINGS))
            limits = EngineLimits(context_tokens=TOY_CONTEXT, **settings)
            tally += replay_crowd(weights, "toy", limits, share, threads, isa if elsewhere else "")
    return tally


def replay_default(answers: int) -> Tally:
    limits = EngineLimits(context_tokens=512, max_sequences=6, prefill_chunk_tokens=32)
    return replay_crowd(default_weights(), "default", limits, answers, 1, "avx2")


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
