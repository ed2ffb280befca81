"""Run every measurement, print one table, write build/bench.json."""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import cryptography
from cryptography.hazmat.backends.openssl import backend

import tests.bench as bench
from tests.bench import Row

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "build" / "bench.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="a module, e.g. crypto; may be repeated")
    parser.add_argument("--no-peers", action="store_true", help="leave out what must be installed first")
    parser.add_argument("--quick", action="store_true", help="few repetitions: does it run? figures mean little")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: build/bench.json")
    options = parser.parse_args(arguments)
    names = modules()
    if unknown := sorted(set(options.only or ()) - set(names)):
        parser.error(f"no measurement called {', '.join(unknown)}; there are: {', '.join(names)}")
    rows, failed = measure(options.only or names, quick=options.quick, peers=not options.no_peers)
    print(table(rows))
    print(machine())
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    print(f"written: {options.output}", file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def modules() -> list[str]:
    """Name the modules of this folder that measure something: those whose source has a `rows`."""
    found = sorted(each.name for each in pkgutil.iter_modules(bench.__path__) if not each.ispkg)
    return [name for name in found if "\ndef rows(" in (Path(bench.__path__[0]) / f"{name}.py").read_text()]


def measure(names: Sequence[str], *, quick: bool, peers: bool) -> tuple[list[Row], list[str]]:
    """Run the modules in order; one that breaks is named and does not take the others with it."""
    rows: list[Row] = []
    failed: list[str] = []
    for name in names:
        for part in ("rows", "peer_rows") if peers else ("rows",):
            began_s = time.monotonic()
            print(f"bench: {name}.{part} ...", file=sys.stderr, flush=True)
            try:
                function = getattr(importlib.import_module(f"tests.bench.{name}"), part, None)
                rows += function(quick) if function is not None else []
            except Exception:  # noqa: BLE001 - the other measurements still count
                traceback.print_exc()
                failed.append(f"{name}.{part}")
            print(f"bench: {name}.{part} took {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    return rows, failed


def table(rows: Sequence[Row]) -> str:
    """Align the rows for a person; `peer` is the peer's own figure, worked out from the ratio."""
    lines = [("name", "ours", "unit", "against", "peer", "ratio", "evidence")]
    for row in rows:
        lines.append(
            (
                row.name,
                figure(row.value),
                row.unit,
                row.against or "",
                figure(theirs(row)) if row.against else "",
                figure(row.ratio) if row.against and row.reason is None else row.reason or "",
                row.evidence or "",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in (1, 4) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, [*widths, 0], strict=True))
        ).rstrip()
        for line in lines
    )


def theirs(row: Row) -> float | None:
    if row.value is None or row.ratio is None:
        return None
    forward = row.against == "direct" or row.unit.endswith(bench.RATES)
    return row.value / row.ratio if forward else row.value * row.ratio


def figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine() -> str:
    """Say on what the figures were taken."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return (
        f"machine: {cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, cryptography {cryptography.__version__}, "
        f"{backend.openssl_version_text()}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    )


if __name__ == "__main__":
    sys.exit(main())
