"""A gateway on a port of its own before two enclaves whose keys live for seconds, and what may befall them."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.stack import Stack, running_stack

LIMIT_S = 60
KEYSET = "\n[keyset]\nlifetime_s = 24\ngrace_s = 12\n"
GATEWAY = "\n[appraisal]\ninterval_s = 1.0\nretry_s = 0.2\nhealth_interval_s = 0.5\n"
NODES = ("enclave", "second")


@contextmanager
def two_nodes(folder: Path, port: int, **settings: Any) -> Iterator[Stack]:
    """Start all of it, with a key for many calls at once, and stop it at the end of the block."""
    with running_stack(folder, port=port, enclave_settings=KEYSET, gateway_settings=GATEWAY, **settings) as stack:
        stack.second = stack.ground.start_enclave(name="second").ready()["url"]  # type: ignore[attr-defined]
        file = f"{stack.ground.folder}/keys.toml"
        many = ("--label", "storm", "--max-concurrency", "200", "--json")
        stack.ground.api_key = stack.ground.confide("keys", "keys", "new", "--file", file, *many).ready()["key"]
        stack.ground.stop("keys")
        restart_gateway(stack)
        yield stack


def restart_gateway(stack: Stack) -> None:
    """Stop the gateway as systemd does, wait for it, and start it anew on the same port."""
    old = stack.ground.children["gateway"].process
    old.send_signal(signal.SIGTERM)
    assert old.wait(LIMIT_S) == 0
    _start_gateway(stack)


def kill_gateway(stack: Stack) -> None:
    """Kill the gateway with whatever it is at, and start it anew on the same port."""
    old = stack.ground.children["gateway"].process
    old.kill()
    old.wait(LIMIT_S)
    _start_gateway(stack)


def kill_node(stack: Stack, keyset_hex: str) -> None:
    """Kill the node whose keyset that is."""
    (name,) = [each for each in NODES if keyset_hex in (stack.ground.folder / f"{each}.log").read_text()]
    stack.ground.children[name].process.kill()


def executions(stack: Stack) -> int:
    """Count the sealed requests that any node answered, once the nodes' logs stand still.

    A line is written a moment after its answer was sent.
    """
    found = _logged(stack)
    while True:
        time.sleep(0.5)
        before, found = found, _logged(stack)
        if before == found:
            return found


def _start_gateway(stack: Stack) -> None:
    port = int(stack.url.rpartition(":")[2])
    stack.ground.start_gateway([stack.enclave_url, stack.second], port, GATEWAY)  # type: ignore[attr-defined]


def _logged(stack: Stack) -> int:
    found = 0
    for name in NODES:
        for line in (stack.ground.folder / f"{name}.log").read_text().splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            found += said.get("path", "").startswith("/ohttp/") and said.get("status") == 200
    return found
