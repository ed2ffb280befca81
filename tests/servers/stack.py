"""Device, gateway and an enclave whose engine is a server beside it, as processes on loopback."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import httpx2
import pytest
from confide.playground import ENCLAVE, Playground, playground
from confide.transport import Transport
from confide_enclave.remote.http import Client
from confide_protocol.errors import EngineError

from tests.fakes.stack import Stack

CONNECT_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 60.0


@dataclass
class RemoteStack(Stack):
    """A stack, and how to see the server from outside: `rooms` is where its socket lies."""

    rooms: Path

    @property
    def enclave_pid(self) -> int:
        return self.ground.children["enclave"].process.pid

    @property
    def server_pid(self) -> int:
        (pid,) = children(self.enclave_pid)
        return pid

    def metric(self, name: str) -> float:
        """Return one of the server's own numbers, over all its labels."""
        (socket,) = self.rooms.glob("confide-engine-*/socket")
        text = asyncio.run(Client(f"unix:{socket}", "", CONNECT_TIMEOUT_S).get("/metrics")).decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        assert lines, name
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def interrupted(self, body: dict[str, Any], events: int, interrupt: Callable[[], None]) -> str:
        """Stream an answer and `interrupt` after so many events; return the code of the error that ends it.

        Raises: AssertionError unless the enclave also signed that it broke the answer off.
        """
        asked = {"model": self.model, "stream": True, **body}
        said: list[dict[str, Any]] = []

        def read(lines: Iterator[str]) -> None:
            for line in lines:
                if line.startswith("data: {"):
                    said.append(json.loads(line.removeprefix("data: ")))
                    if len(said) == events:
                        interrupt()

        with (
            httpx2.Client(transport=Transport(self.url, relay=self.relay()), timeout=READ_TIMEOUT_S) as http,
            http.stream("POST", self.url + "/v1/chat/completions", json=asked) as answer,
            pytest.raises(EngineError, match="signed that it did"),
        ):
            read(answer.iter_lines())
        code: str = said[-1].get("error", {}).get("code", "")
        return code


def processor_s(pid: int) -> float:
    """Return the seconds of processor that a process and all below it have used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(processor_s, children(pid)))


def children(pid: int) -> list[int]:
    """Return what a process started (Linux)."""
    found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(each) for part in found for each in part]


@contextmanager
def running(folder: Path, rooms: Path, settings: str, *, wait_s: float) -> Iterator[RemoteStack]:
    """Start everything; `settings` are the enclave's [model] and [engine], `wait_s` what its engine may take."""
    before = os.environ.get("TMPDIR")
    with playground(folder, gpus=0) as ground:
        try:
            os.environ["TMPDIR"] = str(rooms)
            url = _start(ground, settings, wait_s)
            yield RemoteStack(ground, url, rooms)
        finally:
            os.environ.pop("TMPDIR")
            if before is not None:
                os.environ["TMPDIR"] = before
            _stop(ground)


def _start(ground: Playground, settings: str, wait_s: float) -> str:
    ground.write("gateway.secret", "s" * 64)
    device = ground.start_device().ready()
    config = ground.write("enclave.toml", ENCLAVE.format(port=0, platform="sev-snp") + settings)
    measuring = ground.confide("manifest", "enclave", "--config", str(config), "--manifest")
    keys = ground.confide("keys", "keys", "new", "--file", f"{ground.folder}/keys.toml", "--label", "you", "--json")
    ground.write_policy(device, measuring.ready()["manifest_digest"])
    ground.api_key = keys.ready()["key"]
    ground.stop("manifest")
    ground.stop("keys")
    url: str = ground.start_enclave().ready(wait_s)["url"]
    ground.start_gateway([url])
    return url


def _stop(ground: Playground) -> None:
    """Give the enclave the time to stop its server: a playground would not wait for that."""
    child = ground.children.get("enclave")
    if child is not None:
        child.process.terminate()
        with suppress(TimeoutExpired):
            child.process.wait(STOP_TIMEOUT_S)
