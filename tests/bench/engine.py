"""Our engine beside those that people would pick instead: same weights, same prompts, in turns, best of rounds.

Rows `engine.*` are exact mode as it ships, which guesses ahead; `engine.*_unguessed` the same without: guesses
bring more the more a text repeats itself (speculation.py); `engine.*_fast` fast mode. `evidence` says each side's
perplexity, on Alice in windows of 512. A peer gets the float32 values of our GGUF file, llama.cpp the file. All get
the same threads: CONFIDE_BENCH_THREADS, or every core. Tokens are drawn greedily; their times are those at which a
caller has them. Start-up ends when a prompt would be taken; memory is after a first one, without what is set aside
as cache. Peers are optional, see engine_peers.py.
"""

import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from statistics import quantiles

from confide_enclave.engine.card import default_weights
from confide_enclave.engine.package import read_weights
from confide_enclave.engine.quantize import SAMPLE, WINDOW_TOKENS
from confide_enclave.engine.tokens import Tokens

from tests.bench import Row, absent, ours, versus
from tests.bench.engine_subjects import THREADS, Kind, Subject, running
from tests.bench.engine_weights import FOLDER, published
from tests.bench.subjects import PeerAbsent

OURS: Mapping[str, Kind] = {
    "": Kind("exact", "engine_ours", ("exact", "guesses")),
    "_unguessed": Kind("exact_unguessed", "engine_ours", ("exact", "none")),
    "_fast": Kind("fast", "engine_ours", ("fast", "guesses")),
}
PEERS = (
    Kind("transformers_float32", "peer_engine_transformers", ("float32", str(FOLDER)), "engine_transformers"),
    Kind("transformers_bfloat16", "peer_engine_transformers", ("bfloat16", str(FOLDER)), "engine_transformers"),
    Kind(
        "llama_cpp", "peer_engine_llama_cpp", ("-", str(FOLDER / "model.gguf")), "engine_llama_cpp", batches=False
    ),
    Kind("vllm_cpu", "peer_engine_vllm", ("bfloat16", str(FOLDER)), "engine_vllm"),
)
ALONE_LIMIT_S, BESIDE_LIMIT_S = 120, 900
SHORT_START_S = 15
Prompt = dict[str, object]
Figures = dict[str, float]


@dataclass(frozen=True)
class Case:
    """So many prompts of so many tokens each, and how many tokens each gets; `rate` makes them arrive by chance."""

    name: str
    prompts: int
    prompt_tokens: int
    tokens: int
    per_s: float = 0.0

    def task(self) -> dict[str, object]:
        draw = random.Random(7)
        at_s = [0.0] * self.prompts
        for i in range(1, self.prompts):
            at_s[i] = at_s[i - 1] + (draw.expovariate(self.per_s) if self.per_s else 0)
        prompts = [_prompts(self.prompt_tokens)[i % 8] for i in range(self.prompts)]
        return {"prompts": prompts, "tokens": self.tokens, "at_s": at_s}


CASES = (Case("b1", 1, 128, 128), Case("b8", 8, 128, 128))
MORE_CASES = (
    Case("b32", 32, 128, 32),
    Case("2k", 1, 1920, 64),
    Case("arrivals", 12, 128, 32, per_s=1.5),
)
UNITS = {
    "decode_b1": "tok/s",
    "decode_b8": "tok/s",
    "decode_b32": "tok/s",
    "decode_2k": "tok/s",
    "prefill": "tok/s",
    "prefill_2k": "tok/s",
    "arrivals_first_p50_ms": "ms",
    "arrivals_first_p99_ms": "ms",
    "arrivals_between_p50_ms": "ms",
    "arrivals_between_p99_ms": "ms",
    "startup_s": "s",
    "rss_mb": "MB",
}


def rows(quick: bool) -> list[Row]:
    kinds = list(OURS.values())
    measured, _ = _measure(kinds, CASES, rounds=1 if quick else 3, limit_s=ALONE_LIMIT_S)
    return [
        replace(ours(f"engine.{figure}{suffix}", value, UNITS[figure]), evidence=_evidence(measured[kind.name]))
        for suffix, kind in OURS.items()
        for figure, value in measured[kind.name].items()
        if figure in UNITS
    ]


def peer_rows(quick: bool) -> list[Row]:
    """Say nothing new of ours where no peer is installed, so that this takes no time then."""
    installed = [kind for kind in PEERS if kind.installed]
    broken = {kind.name: kind.remedy for kind in PEERS if not kind.installed}
    measured: dict[str, Figures] = {}
    if installed:
        published()
        cases = CASES if quick else (*CASES, *MORE_CASES)
        kinds = [*OURS.values(), *installed]
        measured, faults = _measure(kinds, cases, rounds=1 if quick else 2, limit_s=BESIDE_LIMIT_S)
        broken |= faults
    return list(_beside(measured, broken))


def _beside(measured: Mapping[str, Figures], broken: Mapping[str, str]) -> Iterator[Row]:
    for suffix, kind in OURS.items():
        mine = measured.get(kind.name, {})
        for figure in [figure for figure in UNITS if figure in mine] if mine else ["decode_b1"]:
            for peer in PEERS:
                name, theirs = f"engine.{figure}{suffix}", measured.get(peer.name, {})
                if figure in theirs:
                    row = versus(name, mine[figure], UNITS[figure], peer.name, theirs[figure])
                    yield replace(row, evidence=_evidence(mine, theirs))
                else:
                    reason = broken.get(peer.name, "has no batches")
                    yield absent(name, UNITS[figure], peer.name, reason)


def _measure(
    kinds: Sequence[Kind], cases: Sequence[Case], *, rounds: int, limit_s: float
) -> tuple[dict[str, Figures], dict[str, str]]:
    """Measure all in turns; return figures by engine and name, and for what broke the reason.

    Rounds end early where `limit_s` is over; each case is done once in any case.
    """
    began_s = time.monotonic()
    print(f"bench: {len(kinds)} engines, {THREADS} threads; no round begins after {limit_s:.0f} s", file=sys.stderr)
    measured: dict[str, Figures] = {kind.name: {} for kind in kinds}
    broken: dict[str, str] = {}
    with ExitStack() as stack:
        subjects: dict[str, Subject] = {}
        for kind in kinds:
            try:
                subjects[kind.name] = stack.enter_context(running(kind))
                _first(subjects[kind.name], measured[kind.name])
            except PeerAbsent as fault:
                broken[kind.name] = str(fault)
        for turn in range(rounds):
            if turn and time.monotonic() - began_s > limit_s:
                print(f"bench: ended after {turn} of {rounds} rounds", file=sys.stderr)
                break
            for case in cases:
                for name, subject in subjects.items():
                    if name in broken or (case.prompts > 1 and not case.per_s and not subject.kind.batches):
                        continue
                    try:
                        times = subject.ask("generate", **case.task())
                    except PeerAbsent as fault:
                        broken[name] = str(fault)
                        continue
                    _keep_best(measured[name], _figures(case, times))
    for kind in kinds:
        _start_again(kind, measured[kind.name], broken)
    return {name: figures for name, figures in measured.items() if name not in broken}, broken


def _first(subject: Subject, figures: Figures) -> None:
    """Take what does not depend on turns: memory after a prompt, and perplexity."""
    figures["startup_s"] = subject.startup_s
    subject.ask("generate", **replace(CASES[0], tokens=4).task())
    figures["rss_mb"] = subject.resident_mb()
    figures["perplexity"] = subject.ask("perplexity", windows=_windows())


def _start_again(kind: Kind, figures: Figures, broken: Mapping[str, str]) -> None:
    """Start a second time, now that its files are in memory, if that does not take long."""
    if kind.name not in broken and figures["startup_s"] < SHORT_START_S:
        with running(kind) as subject:
            _keep_best(figures, {"startup_s": subject.startup_s})


def _figures(case: Case, times: list[list[float]]) -> Figures:
    if case.per_s:
        at_s = case.task()["at_s"]
        first_ms = [1e3 * (taken[0] - due_s) for taken, due_s in zip(times, at_s, strict=True)]
        between_ms = [1e3 * (b - a) for taken in times for a, b in pairwise(taken)]
        return {
            f"arrivals_{what}_p{percent}_ms": quantiles(values, n=100, method="inclusive")[percent - 1]
            for what, values in (("first", first_ms), ("between", between_ms))
            for percent in (50, 99)
        }
    # All decode from here to the end.
    began_s, ended_s = max(taken[0] for taken in times), max(taken[-1] for taken in times)
    decoded = sum(moment > began_s for taken in times for moment in taken)
    found = {f"decode_{case.name}": decoded / (ended_s - began_s)}
    if case.prompts == 1:
        name = "prefill" if case.name == "b1" else f"prefill_{case.name}"
        found[name] = case.prompt_tokens / began_s
    return found


def _keep_best(figures: Figures, found: Figures) -> None:
    for name, value in found.items():
        best = max if UNITS[name].endswith("/s") else min
        figures[name] = best(figures.get(name, value), value)


def _evidence(mine: Figures, theirs: Figures | None = None) -> str:
    beside = f", theirs {theirs['perplexity']:.2f}" if theirs else ""
    return f"ppl {mine['perplexity']:.2f}{beside}; {THREADS} threads"


@cache
def _tokens() -> Tokens:
    return Tokens(read_weights(default_weights())[0])


@cache
def _windows() -> list[list[int]]:
    ids = _tokens().encode(SAMPLE.read_text())
    return [ids[i : i + WINDOW_TOKENS] for i in range(0, 4 * WINDOW_TOKENS, WINDOW_TOKENS)]


@cache
def _prompts(tokens: int) -> list[Prompt]:
    """Return texts of exactly so many tokens, each from another place, with their ids."""
    words = SAMPLE.read_text().split()
    found: list[Prompt] = []
    start = 0
    while len(found) < 8:
        end = start + tokens // 2
        while len(ids := _tokens().encode(" ".join(words[start:end]))) < tokens:
            end += 1
        if len(ids) == tokens:
            found.append({"text": " ".join(words[start:end]), "ids": ids})
        start += 11
    return found
