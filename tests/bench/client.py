"""What our SDK adds to a call of the openai client, in the caller's process: CPU time and memory.

Against `direct` a value stands beside what the same call costs in clear, and the ratio is the share that is added;
against a peer it stands beside what that one adds to a call of its own, in clear, in turns with ours. The peers
verify no evidence and check no receipt, for which ours hashes each event and reads its message. hpke-http has no
transport for openai: it is measured on httpx.
"""

import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from confide.playground import ENCLAVE, GPU_ROOTS, Playground
from confide_protocol import labels

from tests.bench import Row, absent, ours, versus
from tests.bench.peers.loopback import STREAM_CHUNKS
from tests.bench.sealed_http import PEERS
from tests.bench.subjects import START_TIMEOUT_S, PeerAbsent, peer_script, process_of, read_line

ANSWER_TIMEOUT_S = 120
EVIDENCE = "SEV-SNP and 1 GPU, simulated"
Samples = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Added:
    """What one client adds to a call, and what the call costs without it. Milliseconds; microseconds an event."""

    first: tuple[float, float]
    imported_ms: float
    warm: tuple[float, float]
    warm_p99: tuple[float, float]
    wall: tuple[float, float]
    chunk: tuple[float, float]
    paced: tuple[float, float]
    memory_mb: tuple[float, float]


def rows(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, our_server(Path(folder)) as ready:
        both = {shape: Client("ours", OURS, {**ready, "shape": shape}) for shape in SHAPES}
        measured, broken = measure(both, quick)
    if broken:
        raise PeerAbsent("; ".join(broken.values()))
    added = measured[labels.SHAPE_NONE]
    bucketed = measured[labels.SHAPE_BUCKETED]
    return [
        *_direct("client.call_first_ms", "ms", added.first, EVIDENCE),
        ours("client.import_ms", added.imported_ms, "ms"),
        *_direct("client.call_warm_ms", "ms", added.warm, "median"),
        *_direct("client.call_warm_ms", "ms", added.warm_p99, "p99"),
        *_direct("client.call_warm_ms", "ms", bucketed.warm, "median, bucketed"),
        *_direct("client.call_wall_ms", "ms", added.wall, "median, with the enclave's part"),
        *_direct("client.chunk_us", "us", added.chunk, "in a burst"),
        *_direct("client.chunk_us", "us", added.paced, "one by one"),
        *_direct("client.rss_mb", "MB", added.memory_mb),
    ]


def peer_rows(quick: bool) -> list[Row]:
    clients: dict[str, Client] = {}
    reasons: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ready = stack.enter_context(our_server(Path(folder)))
        clients["ours"] = Client("ours", OURS, {**ready, "shape": labels.SHAPE_NONE})
        plain = stack.enter_context(
            serving((sys.executable, "-m", "tests.bench.sealed_server", "plain_app", "serve"))
        )
        for peer, requirements in PEERS.items():
            try:
                script = peer_script(peer, requirements)
                server = stack.enter_context(serving((*script.command, "serve")))
            except PeerAbsent as fault:
                reasons[peer] = str(fault)
                continue
            clients[peer] = Client(peer, (*script.command, "client"), {"plain": plain["url"], **server})
        measured, broken = measure(clients, quick)
    if "ours" in broken:
        raise PeerAbsent(broken["ours"])
    mine = measured["ours"]
    found = []
    for name, unit, take in FIGURES:
        for peer in PEERS:
            if peer in measured:
                found.append(versus(name, take(mine), unit, peer, take(measured[peer])))
            else:
                found.append(absent(name, unit, peer, (reasons | broken)[peer]))
    return found


SHAPES = (labels.SHAPE_NONE, labels.SHAPE_BUCKETED)
OURS = (sys.executable, "-m", "tests.bench.client_driver")
QUICK = {"request": 10, "stream": 2, "paced": 1}
COUNTS = {"request": 40, "stream": 20, "paced": 4}
FIGURES: Sequence[tuple[str, str, Callable[[Added], float]]] = (
    ("client.call_warm_ms", "ms", lambda added: added.warm[0]),
    ("client.chunk_us", "us", lambda added: added.chunk[0]),
    ("client.rss_mb", "MB", lambda added: added.memory_mb[0]),
)


def _direct(name: str, unit: str, pair: tuple[float, float], evidence: str | None = None) -> list[Row]:
    return [replace(versus(name, pair[0], unit, "direct", pair[1]), evidence=evidence)]


@dataclass
class Client:
    """One family of clients, in clear and sealed, in processes of its own."""

    name: str
    command: tuple[str, ...]
    ready: Mapping[str, Any] = field(repr=False)

    def once(self, *mode: str) -> Any:
        """Run a mode that prints one line. Raises: PeerAbsent."""
        with self.process(*mode) as process:
            return self.answer(process)

    def pairs(self, process: "subprocess.Popen[str]", kind: str, count: int) -> Samples:
        assert process.stdin is not None
        process.stdin.write(f"{kind} {count}\n")
        process.stdin.flush()
        samples: Samples = self.answer(process)
        return samples

    def answer(self, process: "subprocess.Popen[str]") -> Any:
        try:
            return json.loads(read_line(process, ANSWER_TIMEOUT_S))
        except ValueError:
            raise PeerAbsent(f"{self.name} broke while it was measured") from None

    @contextmanager
    def ready_for_pairs(self) -> "Iterator[subprocess.Popen[str]]":
        with self.process("pairs") as process:
            if read_line(process, START_TIMEOUT_S) != "ready\n":
                raise PeerAbsent(f"{self.name} does not run here")
            yield process

    def process(self, *mode: str) -> "AbstractContextManager[subprocess.Popen[str]]":
        return process_of((*self.command, json.dumps(dict(self.ready)), *mode))


def measure(clients: Mapping[str, Client], quick: bool) -> tuple[dict[str, Added], dict[str, str]]:
    """Measure all clients in turns; one that breaks is left out, and the second result says why."""
    starts, rounds, counts = (1, 1, QUICK) if quick else (5, 8, COUNTS)
    broken: dict[str, str] = {}
    firsts: dict[str, list[dict[str, float]]] = {}
    memory: dict[tuple[str, str], list[float]] = {}
    taken: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        running: dict[str, subprocess.Popen[str]] = {}
        for name, client in clients.items():
            try:
                for _ in range(starts):
                    firsts.setdefault(name, []).append(client.once("first"))
                for variant in ("plain", "sealed"):
                    for _ in range(min(starts, 3)):
                        memory.setdefault((name, variant), []).append(client.once("memory", variant) / 1e6)
                running[name] = stack.enter_context(client.ready_for_pairs())
            except PeerAbsent as fault:
                broken[name] = str(fault)
        for _ in range(rounds):
            for kind, count in counts.items():
                for name, process in running.items():
                    if name in broken:
                        continue
                    try:
                        samples = clients[name].pairs(process, kind, count)
                    except (PeerAbsent, OSError) as fault:
                        broken[name] = str(fault)
                        continue
                    for variant, each in samples.items():
                        taken.setdefault((name, kind, variant), []).extend(each)
    return {name: _added(name, firsts[name], memory, taken) for name in running if name not in broken}, broken


def _added(
    name: str,
    firsts: Sequence[Mapping[str, float]],
    memory: Mapping[tuple[str, str], Sequence[float]],
    taken: Mapping[tuple[str, str, str], Sequence[tuple[float, float]]],
) -> Added:
    def over(least: Callable[[str, str], float], kind: str) -> tuple[float, float]:
        plain = least(kind, "plain")
        return least(kind, "sealed") - plain, plain

    def cpu(kind: str, variant: str) -> float:
        return median(sample[0] for sample in taken[name, kind, variant])

    def cpu_p99(kind: str, variant: str) -> float:
        return quantiles([sample[0] for sample in taken[name, kind, variant]], n=100)[98]

    def wall(kind: str, variant: str) -> float:
        return median(sample[1] for sample in taken[name, kind, variant])

    first = {part: median(each[part] for each in firsts) for part in firsts[0]}
    resident = {variant: median(memory[name, variant]) for variant in ("plain", "sealed")}
    warm = over(cpu, "request")

    def chunk(kind: str) -> tuple[float, float]:
        """Take off what a call costs anyhow."""
        added, plain = (
            (long - short) * 1000 / STREAM_CHUNKS for long, short in zip(over(cpu, kind), warm, strict=True)
        )
        return added, plain

    return Added(
        first=(first["sealed"] - first["plain"], first["plain"]),
        imported_ms=first["import"],
        warm=warm,
        warm_p99=over(cpu_p99, "request"),
        wall=over(wall, "request"),
        chunk=chunk("stream"),
        paced=chunk("paced"),
        memory_mb=(resident["sealed"] - resident["plain"], resident["plain"]),
    )


@contextmanager
def our_server(folder: Path) -> Iterator[dict[str, Any]]:
    """Start a simulated device with one GPU and an enclave on it; yield how clients reach it."""
    ground = Playground(folder, shape=labels.SHAPE_NONE)
    secret = secrets.token_hex(32)
    try:
        ground.write("gateway.secret", secret)
        device = ground.start_device().ready()
        settings = ENCLAVE.format(port=0, platform=ground.platform) + "gpus = true\n" + GPU_ROOTS.format_map(device)
        config = ground.write("enclave.toml", settings)
        with serving((sys.executable, "-m", "tests.bench.client_server", str(config))) as enclave:
            policy = ground.write_policy(device, enclave["manifest"])
            yield {"url": enclave["url"], "secret": secret, "policy": str(policy)}
    finally:
        ground.stop_all()


@contextmanager
def serving(command: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run a server; yield the JSON line that it prints when ready. Raises: PeerAbsent."""
    with process_of(command) as process:
        try:
            ready: dict[str, Any] = json.loads(read_line(process, START_TIMEOUT_S))
        except ValueError:
            raise PeerAbsent(f"{command[-2]} does not start here") from None
        yield ready
