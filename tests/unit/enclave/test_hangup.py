"""SIGHUP while the enclave still starts: it neither ends it nor is forgotten."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner
from confide_enclave import cli
from confide_enclave.server import _Server
from confide_enclave.serving import Enclave

SETTINGS = 'gateway_secret_file = "x"\nplatform = "simulated-sev-snp"\ndevice_socket = "x"\n'


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """Whatever happens, the tests go on."""
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("amid", ["", "load_settings", "load_gateway_secret", "_start"])
def test_a_signal_at_any_step_of_the_start_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amid: str
) -> None:
    """The server learns that it is to read the file again."""
    (tmp_path / "enclave.toml").write_text(SETTINGS)
    served: list[bool] = []
    settings = cli.load_settings(tmp_path / "enclave.toml")
    results: dict[str, Any] = {
        "load_settings": settings,
        "load_gateway_secret": b"",
        "_start": (Enclave(None, []), None, {}),  # type: ignore[arg-type]
        "_check_device": None,
        "bind": None,
        "forbid_core_dumps": None,
    }

    def step(name: str) -> Any:
        if name == amid:
            os.kill(os.getpid(), signal.SIGHUP)
        return results[name]

    for name in results:
        monkeypatch.setattr(cli, name, lambda *_, name=name: step(name))
    monkeypatch.setattr(cli, "serve", lambda *given: served.append(given[-1].is_set()))
    result = CliRunner().invoke(cli.enclave, ["--config", str(tmp_path / "enclave.toml")])
    assert result.exit_code == 0, result.output
    assert served == [bool(amid)]


class Wishes:
    """Stands for a reloader."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1

    async def run(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.anyio
@pytest.mark.parametrize("before", [False, True])
async def test_the_server_passes_it_on_once_it_is_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], before: bool
) -> None:
    """And every later one too."""

    async def startup(*_: Any, **__: Any) -> None:
        pass

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    asked, reloader, enclave = threading.Event(), Wishes(), Enclave(None, [])  # type: ignore[arg-type]
    if before:
        asked.set()
    server = _Server(uvicorn.Config(enclave), enclave, {}, reloader, asked)  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup([listener])
    assert '"ready": true' in capsys.readouterr().out
    assert reloader.asked == before
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)
    assert reloader.asked == before + 1
    asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
    assert server._reloading is not None
    server._reloading.cancel()
    with suppress(asyncio.CancelledError):
        await server._reloading
