"""`confide enclave`: what a person types wrongly ends in one line and exit 2."""

import json
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner
from confide_enclave.cli import enclave


def run(*arguments: str):
    return CliRunner().invoke(enclave, list(arguments))


@pytest.fixture
def folder(tmp_path):
    """A folder with a good configuration and secret; no device."""
    (tmp_path / "secret").write_text("k" * 32)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "enclave.toml").write_text(
        'gateway_secret_file = "secret"\nplatform = "simulated-sev-snp"\ndevice_socket = "d.sock"\n'
    )
    return tmp_path


def refused(result) -> str:
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert result.output.startswith("confide enclave: ")
    assert result.output.count("\n") == 1
    return result.output


def test_help_teaches():
    """The help has an example that can be copied."""
    result = run("--help")
    assert result.exit_code == 0
    assert "confide-sim --socket" in result.output


def test_an_absent_config_is_named(tmp_path):
    """File, field, remedy."""
    assert "check --config" in refused(run("--config", str(tmp_path / "no.toml")))


def test_an_absent_device_is_named(folder):
    """The remedy is the command that starts it."""
    told = refused(run("--config", str(folder / "enclave.toml")))
    assert told.endswith(f"start: confide-sim --socket {folder / 'd.sock'} --endorsements-dir endorsements\n")


def test_a_wide_secret_is_named(folder):
    """Before anything is loaded."""
    (folder / "secret").chmod(0o644)
    assert "chmod 600" in refused(run("--config", str(folder / "enclave.toml")))


def test_a_port_in_use_is_named(folder):
    """Before the model is loaded."""
    with socket.socket(socket.AF_UNIX) as device, socket.socket() as taken:
        device.bind(str(folder / "d.sock"))
        device.listen()
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (folder / "enclave.toml").open("r+") as file:
            text = file.read()
            file.seek(0)
            file.write(f'listen = "127.0.0.1:{port}"\n{text}')
        message = refused(run("--config", str(folder / "enclave.toml")))
    assert "listen" in message
    assert "choose another port" in message


@pytest.mark.parametrize("extra", [[], ["--manifest"]])
def test_absent_weights_are_named(folder, extra):
    """Also for the manifest alone."""
    with socket.socket(socket.AF_UNIX) as device:
        device.bind(str(folder / "d.sock"))
        device.listen()
        with (folder / "enclave.toml").open("a") as file:
            file.write('[model]\nweights = "no.gguf"\n')
        assert "no.gguf" in refused(run("--config", str(folder / "enclave.toml"), *extra))


def test_the_manifest_needs_no_torch(folder):
    """It prints the digest that a policy pins."""
    script = (
        "import sys; from click.testing import CliRunner; from confide_enclave.cli import enclave\n"
        f"r = CliRunner().invoke(enclave, ['--config', {str(folder / 'enclave.toml')!r}, '--manifest'])\n"
        "print(r.output); assert not {'torch', 'tokenizers'} & set(sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    tree = json.loads(printed)
    assert len(bytes.fromhex(tree["manifest_digest"])) == 32
    assert tree["manifest"]["shapes"] == ["bucketed", "none"]
    assert tree["manifest"]["platform"] == "simulated-sev-snp"
