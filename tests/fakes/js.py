"""The TypeScript package in one Node process, asked in JSON lines; see client/js/test/interop.js."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.conversations import ASKED
from tests.fakes.stack import Stack

FOLDER = Path(__file__).resolve().parents[2] / "client" / "js"


class Js:
    """A running process; each call is one command."""

    def __init__(self) -> None:
        node = shutil.which("node")
        assert node is not None
        self._process = subprocess.Popen(
            [node, "test/interop.js"], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, op: str, **options: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **options}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def open(self, url: str, policy: str, **options: Any) -> dict[str, Any]:
        return self("open", url=url, policy=policy, **{"id": "it", "allow": True, "key": "", **options})

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@dataclass
class JsStorm:
    """Conversations of one process over one client, as `conversations.Storm` has them in Python."""

    js: Js
    stack: Stack
    conversations: int = 50
    max_tokens: int = 8
    told: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> "JsStorm":
        policy, key = self.stack.ground.policy_file.read_text(), self.stack.ground.api_key
        opened = self.js.open(self.stack.url, policy, id="storm", key=key)
        assert opened["verdict"] == "accepted", opened
        body = {**ASKED, "max_tokens": self.max_tokens}
        self.told = self.js("storm", id="storm", conversations=self.conversations, body=body)
        return self

    def __exit__(self, *_: object) -> None:
        self.told = self.js("calm")

    @property
    def begun(self) -> dict[str, int]:
        """Count what calls ended in whose answer had begun, by code."""
        return dict(self.told["begun"])

    @property
    def unbegun(self) -> dict[str, int]:
        return dict(self.told["unbegun"])

    @property
    def calls(self) -> int:
        return int(self.told["whole"]) + sum(self.begun.values()) + sum(self.unbegun.values())

    def wait_for(self, more: int, limit_s: float) -> None:
        """Wait until so many more calls were answered."""
        self.told = self.js("told")
        goal, deadline_s = self.told["whole"] + more, time.monotonic() + limit_s
        while self.told["whole"] < goal:
            assert time.monotonic() < deadline_s, (self.told, goal)
            time.sleep(0.1)
            self.told = self.js("told")


@contextmanager
def running_js() -> Iterator[Js]:
    """Give the package, or skip with the reason that it cannot run here."""
    if shutil.which("node") is None:
        pytest.skip("node is not on PATH; install Node.js 20 or newer")
    if not (FOLDER / "dist" / "index.js").exists():
        pytest.skip("client/js is not built; run `make test-js`, or `npm ci && npm run build` there")
    with closing(Js()) as running:
        yield running


def b64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
