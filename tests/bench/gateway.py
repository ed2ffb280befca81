"""What the relay costs: requests a second and paced chunks a second, beside the node itself and the httpx path.

Node, gateways and load generator are processes of their own and share the machine's cores; direct and relayed
runs take turns, and the best of each counts.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from confide_gateway.keys import KeyFile, with_key, write_keys

from tests.bench import Row, versus

ROOT = Path(__file__).resolve().parents[2]
KEY = "confide-" + "b" * 43
SETTINGS = """\
listen = "127.0.0.1:0"
policy = "policy.toml"
api_keys_file = "keys.toml"
allow_simulated = true
forwarder = "{forwarder}"
[[enclaves]]
url = "{url}"
secret_file = "secret"
[log]
level = "warning"
"""
SERVE = "import sys; from confide_gateway.cli import gateway; gateway(['--config', sys.argv[1]])"


def rows(quick: bool) -> list[Row]:
    rounds, seconds = (1, 0.4) if quick else (4, 2.0)
    with tempfile.TemporaryDirectory() as folder, subjects(Path(folder)) as (path, ports):
        echo = dict.fromkeys(ports, 0.0)
        paced = dict.fromkeys(ports, 0.0)
        for _ in range(rounds):
            for best, mode, connections in ((echo, "echo", 32), (paced, "paced", 192)):
                for name, port in ports.items():
                    best[name] = max(best[name], load(port, path, mode, connections, seconds))
    return [
        versus(name, best["own"], unit, against, best[against])
        for name, unit, best in (
            ("gateway.requests_1kb", "requests/s", echo),
            ("gateway.paced_chunks_192", "chunks/s", paced),
        )
        for against in ("direct", "httpx")
    ]


@contextlib.contextmanager
def subjects(folder: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """Start the node and both gateways; yield the path of a sealed request and the port of each subject."""
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(process("-m", "tests.bench.gateway_node"))
        (folder / "policy.toml").write_text(node["policy"])
        (folder / "secret").write_text("b" * 43)
        (folder / "secret").chmod(0o600)
        keys = folder / "keys.toml"
        write_keys(keys, with_key(KeyFile(), keys, "bench", KEY, 1024))
        ports = {"direct": int(node["url"].rpartition(":")[2])}
        for name, forwarder in (("own", "httptools"), ("httpx", "httpx")):
            config = folder / f"{name}.toml"
            config.write_text(SETTINGS.format(forwarder=forwarder, url=node["url"]))
            gateway = stack.enter_context(process("-c", SERVE, str(config)))
            wait_ready(gateway["url"])
            ports[name] = int(gateway["url"].rpartition(":")[2])
        yield node["path"], ports


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[dict[str, str]]:
    """Run Python with these arguments; yield the JSON line that it prints when ready."""
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            ready: dict[str, str] = json.loads(running.stdout.readline())
            yield ready
        finally:
            running.terminate()


def wait_ready(url: str) -> None:
    for _ in range(200):
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url + "/readyz"):  # noqa: S310
            return
        time.sleep(0.05)
    raise RuntimeError("the gateway did not verify its node")


def load(port: int, path: str, mode: str, connections: int, seconds: float) -> float:
    order = {
        "port": port,
        "path": path,
        "key": KEY,
        "mode": mode,
        "connections": connections,
        "warm_s": min(0.5, seconds),
        "measure_s": seconds,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.gateway_load"],
        cwd=ROOT,
        input=json.dumps(order),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    per_s: float = json.loads(done.stdout)["per_s"]
    return per_s
