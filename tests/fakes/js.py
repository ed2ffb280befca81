"""The TypeScript package in one Node process, asked in JSON lines; see client/js/test/interop.js."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

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
        return self("open", id="it", url=url, policy=policy, **{"allow": True, "key": "", **options})

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


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
