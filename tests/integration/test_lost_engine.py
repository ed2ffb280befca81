"""An engine that a device has left without: the process ends by itself, for another to take its place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from confide_enclave import cli
from confide_enclave.cli import EXIT_LOST, enclave
from confide_enclave.serving import Enclave

from tests.fakes.engine import ScriptedEngine

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = 'gateway_secret_file = "x"\nplatform = "simulated-sev-snp"\ndevice_socket = "x"\n'
LATER_LOST = """
import time
from tests.fakes import scripted_enclave
begun_s = time.monotonic()
scripted_enclave.ReportingEngine.lost = property(lambda self: time.monotonic() > begun_s + 2)
scripted_enclave.main()
"""


def test_the_server_ends(tmp_path: Path) -> None:
    """It serves, and when the engine is lost it shuts down as if it were told to."""
    config = tmp_path / "enclave.toml"
    config.write_text(SETTINGS)
    ended = subprocess.run(
        [sys.executable, "-c", LATER_LOST, str(config), "s" * 32, "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[0])["ready"] is True


@pytest.mark.parametrize(("lost", "status"), [(False, 0), (True, EXIT_LOST)])
def test_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool, status: int) -> None:
    """An exit status of its own makes a supervisor start it again."""
    (tmp_path / "enclave.toml").write_text(SETTINGS)
    engine = ScriptedEngine()
    engine.lost = lost
    served = Enclave(None, [engine])  # type: ignore[arg-type]
    for name in ("load_gateway_secret", "_check_device", "bind", "serve", "forbid_core_dumps"):
        monkeypatch.setattr(cli, name, lambda *_: None)
    monkeypatch.setattr(cli, "_start", lambda *_: (served, None, {}))
    result = CliRunner().invoke(enclave, ["--config", str(tmp_path / "enclave.toml")])
    assert result.exit_code == status, result.output
    assert ("engine_lost" in result.output) is lost
