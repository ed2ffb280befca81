"""Make the clients' environments, run each client against a gateway with two enclaves, print what passes.

python -m tests.clients            every client that is made
python -m tests.clients --make     make those that are not, first
python -m tests.clients openai3 …  some of them
python -m tests.clients --write    every client, and the table into docs/CLIENTS.md
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clients.cases import BOTH, CASES, NPM, Case
from tests.fakes.proxying import Proxy, proxying
from tests.fakes.stack import Stack, running_stack

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "clients"
ROOMS = os.pathsep.join(str(ROOT / room) for room in ("protocol", "attestation", "client"))
DOCS = ROOT / "docs" / "CLIENTS.md"
TABLE = ("<!-- table -->\n", "<!-- /table -->\n")
EHBP = "\n[dialects]\nehbp = true\n"
LIMIT_S = 420


def make(name: str) -> None:
    """Install one environment, by its pins."""
    folder = BUILD / name
    if name == "npm":
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--no-fund", "--no-audit", "--prefix", str(folder), *NPM], check=True)
    elif not (folder / "bin").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/python", "-m", "pip", "install", "-q", "-r", HERE / "pins" / f"{name}.txt"]
        subprocess.run(pip, check=True)


def is_made(name: str) -> bool:
    if name == "npm":
        return all((BUILD / name / "node_modules" / each.rpartition("@")[0]).exists() for each in NPM)
    return (BUILD / name / "bin").exists()


@contextmanager
def two_enclaves(folder: Path) -> Iterator[tuple[Stack, Proxy]]:
    with running_stack(folder, gpus=0, enclave_settings=f"[embeddings]\n{EHBP}") as stack:
        second = stack.ground.start_enclave(name="second").ready()["url"]
        keys = f"{folder}/keys.toml"
        more = ("--label", "clients", "--max-concurrency", "64", "--json")
        stack.ground.api_key = stack.ground.confide("keys", "keys", "new", "--file", keys, *more).ready()["key"]
        stack.ground.stop("keys")
        stack.ground.stop("gateway")
        stack.ground.start_gateway([stack.enclave_url, second], settings=EHBP)
        with proxying(stack, folder) as proxy:
            yield stack, proxy


def run(case: Case, way: str, stack: Stack, proxy: Proxy) -> tuple[bool, str, float]:
    made = BUILD / case.made
    script = str(HERE / "scripts" / case.script)
    runner = {".py": [str(made / "bin/python")], ".sh": ["sh"], ".mjs": ["node"]}[Path(script).suffix]
    env = os.environ | {
        "PYTHONPATH": ROOMS, "BIN": str(made / "bin"), "NPM": str(BUILD / "npm/node_modules"),
        "CONFIDE_JS": str(ROOT / "client/js/dist/index.js"),
        "CONFIDE_URL": stack.url, "CONFIDE_API_KEY": stack.ground.api_key,
        "PROXY_URL": proxy.url, "PROXY_KEY": proxy.token,
    }  # fmt: skip
    began_s = time.monotonic()
    try:
        done = subprocess.run(
            [*runner, script, way],
            cwd=stack.ground.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return False, f"longer than {LIMIT_S} s", LIMIT_S
    said = done.stdout.strip() if done.returncode == 0 else f"{done.stdout.strip()}\n{done.stderr.strip()[-1500:]}"
    return done.returncode == 0, said, time.monotonic() - began_s


def version(case: Case) -> str:
    """Ask the environment itself."""
    if case.made == "npm":
        found: str = json.loads((BUILD / "npm/node_modules" / case.package / "package.json").read_text())["version"]
        return found
    ask = f"import importlib.metadata as m; print(m.version({case.package!r}))"
    return subprocess.run(
        [BUILD / case.made / "bin/python", "-c", ask], capture_output=True, text=True, check=True
    ).stdout.strip()


def table(rows: list[tuple[Case, str, dict[str, bool]]]) -> str:
    """Return a line for each client: what it did, by which way, and what it cannot have."""
    lines = ["| client | version | what it does | direct | proxy | not, and why |", "|---|---|---|---|---|---|"]
    for case, found, ways in rows:
        cells = [("passes" if ways[way] else "FAILS") if way in ways else "-" for way in BOTH]
        lines.append(f"| {case.label} | {found} | {case.does} | {cells[0]} | {cells[1]} | {case.but} |")
    return "\n".join(lines) + "\n"


def write(text: str) -> None:
    """Put table and date into the page."""
    page = DOCS.read_text()
    before, _, rest = page.partition(TABLE[0])
    _, _, after = rest.partition(TABLE[1])
    dated = f"Printed by `python -m tests.clients` on {time.strftime('%Y-%m-%d', time.gmtime())}.\n\n{text}"
    DOCS.write_text(f"{before}{TABLE[0]}{dated}{TABLE[1]}{after}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    wanted = [case for case in CASES if not options.names or {case.package, case.made} & set(options.names)]
    if options.make:
        for name in dict.fromkeys(case.made for case in wanted):
            make(name)
    missing = sorted({case.made for case in wanted if not is_made(case.made)})
    if missing:
        print(f"not made: {', '.join(missing)}; run with --make")
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="confide-clients-") as folder,
        two_enclaves(Path(folder)) as (stack, proxy),
    ):
        for case in (case for case in wanted if case.made not in missing):
            ways = {}
            for way in case.ways:
                ways[way], said, seconds = run(case, way, stack, proxy)
                verdict = "passes" if ways[way] else "FAILS"
                print(f"--- {case.label}, {way}: {verdict} ({seconds:.0f} s)\n{said}", flush=True)
            rows.append((case, version(case), ways))
    print("\n" + table(rows))
    if options.write and not missing and not options.names:
        write(table(rows))
    return int(bool(missing) or not all(passed for _, _, ways in rows for passed in ways.values()))


if __name__ == "__main__":
    sys.exit(main())
