"""Run every fuzz target, or the named ones, each in its own process: `python -m tests.fuzz [--seconds N] [NAME …]`.

A target may end only by returning: an exception that a parser does not declare is a finding.
"""

import argparse
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import tests.fuzz

CORPUS = Path("build/fuzz")


def targets() -> dict[str, Callable[[bytes], None]]:
    found: dict[str, Callable[[bytes], None]] = {}
    for module in pkgutil.iter_modules(tests.fuzz.__path__):
        if module.name.startswith("fuzz_"):
            found.update(importlib.import_module(f"tests.fuzz.{module.name}").TARGETS)
    return dict(sorted(found.items()))


def seeds(name: str) -> list[bytes]:
    """Collect the good inputs that a module offers for a target, so that fuzzing starts past the first check."""
    found: list[bytes] = []
    for module in pkgutil.iter_modules(tests.fuzz.__path__):
        if module.name.startswith("fuzz_"):
            offered = getattr(importlib.import_module(f"tests.fuzz.{module.name}"), "seeds", dict)()
            found += offered.get(name, [])
    return found


def fuzz_one(name: str, seconds: int) -> None:
    import atheris

    packages = ["confide_protocol", "confide_attestation", "confide_endorsements", "confide_enclave"]
    with atheris.instrument_imports(include=packages):
        target = targets()[name]
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=65536",
        f"-artifact_prefix={corpus}/",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *options], target)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="targets; all of them when none is named")
    parser.add_argument("--seconds", type=int, default=60, help="time for each target")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        fuzz_one(options.names[0], options.seconds)
        return 0
    known = targets()
    if unknown := set(options.names) - set(known):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failed = []
    for name in options.names or known:
        print(f"fuzz {name}: {options.seconds} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", name, "--one", "--seconds", str(options.seconds)]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [
            line for line in done.stderr.splitlines() if line.startswith(("Done ", "stat::")) or "Error" in line
        ]
        print("\n".join(f"  {line}" for line in lines[-3:]), flush=True)
        if done.returncode != 0:
            failed.append(name)
            print(done.stderr[-3000:], file=sys.stderr)
    print(f"{len(failed)} of {len(options.names or known)} targets failed" + "".join(f" {name}" for name in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
