"""Two clients of one library in turns, in clear and sealed: what a call costs the caller's own process.

The figures are CPU time of the whole process, all threads: what else the machine does, and how long a server takes,
is not in them. Of the standard library and loopback.py, so every peer's environment can run it. Modes:

first       import, set up and call once, in a process that has called nothing yet; prints one object
memory NAME the same with one of both clients alone, a few times over; prints bytes
pairs       reads "KIND COUNT", does COUNT pairs of calls, prints their samples
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loopback import PACED, PROMPT, STREAM_CHUNKS

Exchanges = Mapping[str, Callable[[], None]]
# Imports what it needs; what it returns makes a client and its exchanges by kind.
Maker = Callable[[], Callable[[], Exchanges]]
WARM_CALLS = 20


def run(makers: Mapping[str, Maker], mode: str, name: str = "") -> None:
    """`makers`: "plain" and "sealed"."""
    if mode == "memory":
        exchanges = makers[name]()()
        for _ in range(WARM_CALLS):
            exchanges["request"]()
        exchanges["stream"]()
        print(resident_bytes(), flush=True)
    elif mode == "first":
        print(json.dumps(first(makers)), flush=True)
    else:
        pairs({each: maker()() for each, maker in makers.items()})


def openai_exchanges(client: Any, streaming: Any = None, paced: Any = None) -> Exchanges:
    """A short answer in one body, and one of STREAM_CHUNKS events, in a burst or one by one.

    `streaming` and `paced`: other clients for these.
    """
    asked: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": PROMPT}]}

    def request() -> None:
        assert client.chat.completions.create(**asked, max_tokens=1).choices[0].message.content

    def stream(client: Any, **more: Any) -> None:
        answer = client.chat.completions.create(**asked, max_tokens=STREAM_CHUNKS, stream=True, **more)
        assert sum(len(event.choices[0].delta.content or "") for event in answer) >= STREAM_CHUNKS

    return {
        "request": request,
        "stream": lambda: stream(streaming or client),
        "paced": lambda: stream(paced or client, seed=PACED),
    }


def first(makers: Mapping[str, Maker]) -> dict[str, float]:
    """Return milliseconds of each client's first call and, for the sealed one, of the import."""
    plain = makers["plain"]()
    plain()["request"]()  # what the library itself loads at its first call is no one's doing
    taken = {"plain": _cpu_ms(lambda: plain()["request"]())}
    made: list[Callable[[], Exchanges]] = []
    taken["import"] = _cpu_ms(lambda: made.append(makers["sealed"]()))
    taken["sealed"] = _cpu_ms(lambda: made[0]()["request"]())
    return taken


def pairs(clients: Mapping[str, Exchanges]) -> None:
    """Answer each line with CPU and wall milliseconds of every call, by client."""
    for exchanges in clients.values():
        for exchange in exchanges.values():
            exchange()
    print("ready", flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        for _ in range(int(count)):
            for name, exchanges in clients.items():
                began_s = time.perf_counter()
                cpu_ms = _cpu_ms(exchanges[kind])
                samples[name].append((cpu_ms, (time.perf_counter() - began_s) * 1000))
        print(json.dumps(samples), flush=True)


def _cpu_ms(work: Callable[[], object]) -> float:
    began_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - began_ns) / 1e6


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) * 1024
