"""`confide proxy` as a process of its own, before a running stack."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from confide.playground import Child

from tests.fakes.stack import Stack


@dataclass
class Proxy:
    """A proxy that listens, and what it said of itself."""

    child: Child
    said: dict[str, Any]

    @property
    def url(self) -> str:
        return self.said["url"]

    @property
    def token(self) -> str:
        return Path(self.said["token_file"]).read_text().strip()

    def http(self, **options: Any) -> httpx2.Client:
        options = {"base_url": self.url, "headers": {"authorization": f"Bearer {self.token}"}, **options}
        return httpx2.Client(trust_env=False, timeout=60, **options)


def arguments(stack: Stack, folder: Path, *more: str) -> list[str]:
    key = stack.ground.write("proxy.key", stack.ground.api_key)
    return [
        sys.executable, "-m", "confide.cli", "proxy", "--base-url", stack.url, "--policy",
        str(stack.ground.policy_file), "--allow-simulated", "--api-key-file", str(key),
        "--token-file", str(folder / "proxy.token"), *more,
    ]  # fmt: skip


@contextmanager
def proxying(stack: Stack, folder: Path, *more: str) -> Iterator[Proxy]:
    """Run a proxy on any free port, or as `more` says, until the block ends."""
    place = () if "--socket" in more or "--listen" in more else ("--listen", "127.0.0.1:0")
    child = Child("proxy", arguments(stack, folder, *place, *more), folder)
    try:
        yield Proxy(child, child.ready())
    finally:
        child.stop()
