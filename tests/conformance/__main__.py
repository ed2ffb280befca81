"""Run the mutation suite over every piece of accepted evidence, ours or another verifier's; print the score."""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from tests.conformance import Case, Mutation, uncovered
from tests.conformance.cases import all_cases
from tests.conformance.command import HELP, by_command, fits
from tests.conformance.mutate import mutations
from tests.conformance.score import Score, score, table, total

WORKERS = 2
_work: list[Case] = []


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description=__doc__,
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--full", action="store_true", help="flip every bit of every byte (default: a fixed sample)"
    )
    parser.add_argument("--kind", action="append", help="only this kind of evidence; may be repeated")
    parser.add_argument("--case", action="append", help="only cases whose name has this in it; may be repeated")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth mutation of each case")
    parser.add_argument("--command", help="judge by another verifier's command line, with placeholders (see below)")
    parser.add_argument("--json", action="store_true", help="read failing checks from what --command prints")
    parser.add_argument("--explain", action="store_true", help="list the bytes that may be changed, and why")
    parser.add_argument("--output", type=Path, help="write every count as JSON")
    options = parser.parse_args(given)
    began_s = time.monotonic()
    _work[:] = all_cases()
    chosen = [number for number, case in enumerate(_work) if _wanted(case, options)]
    if not chosen:
        parser.error("no case is left; without CONFIDE_SHARED only simulated evidence is here")
    # Bundles take longest: they go first, and nobody waits for the last of them.
    chosen.sort(key=lambda number: _work[number].kind != "bundle")
    jobs = [(number, options) for number in chosen]
    with multiprocessing.get_context("fork").Pool(min(WORKERS, os.cpu_count() or 1)) as pool:
        scores = list(pool.imap(_run, jobs, chunksize=1))
    print(table(scores))
    if options.explain:
        for text in explained(scores):
            print(text)
    if options.output is not None:
        options.output.write_text(json.dumps([vars(each) for each in scores], indent=1) + "\n")
    print(f"{total(scores)}; {time.monotonic() - began_s:.0f} s")
    return 0 if all(each.sound and not each.holes for each in scores) else 1


def explained(scores: Sequence[Score]) -> Iterator[str]:
    """Say once of each field that may be changed why."""
    said: dict[str, set[str]] = {}
    for each in scores:
        for name, reason in each.reasons.items():
            said.setdefault(reason, set()).add(name)
    for reason, names in sorted(said.items()):
        yield f"may be changed: {', '.join(sorted(names))}: {reason}"


def _wanted(case: Case, options: argparse.Namespace) -> bool:
    if options.kind and case.kind not in options.kind:
        return False
    if options.case and not any(part in case.name for part in options.case):
        return False
    return options.command is None or fits(options.command, case)


def _run(job: tuple[int, argparse.Namespace]) -> Score:
    number, options = job
    warnings.simplefilter("ignore")
    case = _work[number]
    for role, layout in case.layouts.items():
        if wrong := uncovered(layout, len(case.files[role])):
            raise AssertionError(f"{case.name}: {role}: bytes without a field, or with two: {wrong[:4]}")
    others = [each for each in _work if each.kind == case.kind and each is not case]
    made: Iterator[Mutation] = islice(mutations(case, others, full=options.full), 0, None, options.every)
    if options.command is None:
        return score(case, made)
    with tempfile.TemporaryDirectory() as folder:
        judge = by_command(options.command, case, Path(folder), reads_json=options.json)
        return score(case, made, judge)


if __name__ == "__main__":
    sys.exit(main())
