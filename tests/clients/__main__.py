"""Make the clients' environments, run each client against a gateway with two enclaves, print what passes.

python -m tests.clients            every client that is made
python -m tests.clients --make     make those that are not, first
python -m tests.clients openai3 …  some of them
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.proxying import Proxy, proxying
from tests.fakes.stack import Stack, running_stack

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "clients"
ROOMS = os.pathsep.join(str(ROOT / room) for room in ("protocol", "attestation", "client"))
NPM = ("compatcanary@0.2.2", "openai@6")
LIMIT_S = 420


@dataclass(frozen=True)
class Case:
    """One client: its environment below build/clients, its script, and the ways that it can go."""

    name: str
    made: str
    script: str
    ways: tuple[str, ...] = ("direct", "proxy")


CASES = (
    Case("openai 3.x", "openai3", "openai_sdk.py"),
    Case("openai 2.x", "openai2", "openai_sdk.py"),
    Case("langchain-openai", "openai3", "langchain_chat.py"),
    Case("llama-index openai-like", "openai2", "llamaindex_chat.py"),
    Case("litellm", "openai2", "litellm_chat.py"),
    Case("instructor", "instructor", "instructor_chat.py"),
    Case("llm", "llm", "llm_cli.sh", ("proxy",)),
    Case("lm-eval", "lmeval", "lm_eval.sh", ("proxy",)),
    Case("llm-comply", "comply", "llm_comply.sh", ("proxy",)),
    Case("schemathesis", "comply", "schemathesis.sh", ("proxy",)),
    Case("compatcanary", "npm", "compatcanary.sh", ("proxy",)),
    Case("openai Node", "npm", "openai_node.mjs", ("proxy",)),
)


def make(name: str) -> None:
    """Install one environment, by its pins."""
    folder = BUILD / name
    if name == "npm":
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--no-fund", "--no-audit", "--prefix", folder, *NPM], check=True)
    elif not (folder / "bin").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/python", "-m", "pip", "install", "-q", "-r", HERE / "pins" / f"{name}.txt"]
        subprocess.run(pip, check=True)


def is_made(name: str) -> bool:
    return (BUILD / name / ("node_modules" if name == "npm" else "bin")).exists()


@contextmanager
def two_enclaves(folder: Path) -> Iterator[tuple[Stack, Proxy]]:
    with running_stack(folder, gpus=0, enclave_settings="[embeddings]\n") as stack:
        second = stack.ground.start_enclave(name="second").ready()["url"]
        keys = f"{folder}/keys.toml"
        more = ("--label", "clients", "--max-concurrency", "64", "--json")
        stack.ground.api_key = stack.ground.confide("keys", "keys", "new", "--file", keys, *more).ready()["key"]
        stack.ground.stop("keys")
        stack.ground.stop("gateway")
        stack.ground.start_gateway([stack.enclave_url, second])
        with proxying(stack, folder) as proxy:
            yield stack, proxy


def run(case: Case, way: str, stack: Stack, proxy: Proxy) -> tuple[bool, str, float]:
    made = BUILD / case.made
    script = str(HERE / "scripts" / case.script)
    runner = {".py": [str(made / "bin/python")], ".sh": ["sh"], ".mjs": ["node"]}[Path(script).suffix]
    env = os.environ | {
        "PYTHONPATH": ROOMS, "BIN": str(made / "bin"), "NPM": str(BUILD / "npm/node_modules"),
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


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    wanted = [case for case in CASES if not options.names or {case.name, case.made} & set(options.names)]
    if options.make:
        for name in dict.fromkeys(case.made for case in wanted):
            make(name)
    rows, failed = [], 0
    with (
        tempfile.TemporaryDirectory(prefix="confide-clients-") as folder,
        two_enclaves(Path(folder)) as (stack, proxy),
    ):
        for case in wanted:
            if not is_made(case.made):
                print(f"--- {case.name}: not made; run with --make", flush=True)
                continue
            for way in case.ways:
                passed, said, seconds = run(case, way, stack, proxy)
                failed += not passed
                rows.append((case.name, way, "passes" if passed else "FAILS", f"{seconds:.0f} s"))
                print(f"--- {case.name}, {way}: {'passes' if passed else 'FAILS'}\n{said}", flush=True)
    print()
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
