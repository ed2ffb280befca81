"""The command line: one line for every fault, the right exit status, help that names what is needed."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from confide import cli
from confide.audit import audit_file
from confide.cli import main
from confide_protocol.errors import ConfigError

from tests.fakes.peer import a_peer, said
from tests.fakes.scene import NONCE, NOW

COMMANDS = ("demo", "chat", "verify", "audit", "enclave", "gateway", "keys")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(a_peer().policy_text)
    return path


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Write an audit file of one exchange."""
    peer = a_peer()
    exchange = peer.exchange(b'{"ask":"CANARY"}')
    for chunk in peer.answer(exchange.body, said("Paris"), messages=[b"Paris"]):
        exchange.push(chunk)
    exchange.finish()
    assert exchange.receipt is not None
    path = tmp_path / "kept.audit"
    path.write_bytes(audit_file(exchange.receipt, peer.policy_text.encode(), disclose=True).encoded)
    return path


def is_one_line(result: Result, status: int, *words: str) -> bool:
    """Say whether a fault is told in one line on stderr, without a traceback."""
    lines = [line for line in result.stderr.splitlines() if line]
    assert isinstance(result.exception, SystemExit)
    return result.exit_code == status and len(lines) == 1 and all(word in lines[0] for word in words)


def test_help_names_every_command() -> None:
    """`confide --help` lists all commands, each with a line, and each explains itself."""
    listed = run("--help").output
    for name in COMMANDS:
        assert f"  {name} " in listed
        told = run(name, "--help")
        assert told.exit_code == 0
        assert len(told.output.splitlines()) > 8


def test_version_is_told() -> None:
    """`confide --version` names the distribution's version."""
    assert run("--version").output.startswith("confide, version ")


def test_a_command_without_its_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the base install a server's command names the extra to install, whatever its arguments."""
    entry = EntryPoint("gateway", "a_package_that_is_absent.cli:gateway", cli.COMMANDS_GROUP)
    monkeypatch.setattr(cli, "entry_points", lambda **_: [entry])
    assert is_one_line(run("gateway", "--config", "x"), 2, "a_package_that_is_absent", "confide[gateway]")
    assert "confide[gateway]" in run("--help").output


def test_a_package_missed_while_running_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's command that imports its packages late ends in the same line."""

    def late() -> None:
        raise ModuleNotFoundError("no", name="uvloop")

    monkeypatch.setattr(main, "get_command", lambda *_: click.Command("gateway", callback=late))
    assert is_one_line(run("gateway"), 2, "uvloop", "confide[gateway]")


def test_an_errors_line_obeys_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control characters out of a file's names do not reach the terminal."""

    def fails() -> None:
        raise ConfigError("x.toml", "a\x1b[2J\u202eb", "is not a known setting")

    monkeypatch.setattr(main, "get_command", lambda *_: click.Command("audit", callback=fails))
    assert run("audit").stderr.strip().isprintable()


def test_an_unknown_command_is_refused() -> None:
    """A misspelt command is a usage error."""
    assert run("gatewya").exit_code == 2


def test_audit_of_a_kept_exchange(kept: Path) -> None:
    """It holds with the switch for simulated hardware, is refused without, and shows words only when asked."""
    good = run("audit", str(kept), "--allow-simulated")
    assert good.exit_code == 0
    assert "SIMULATED" in good.output
    assert "all holds" in good.output
    assert "time" in good.output
    assert "CANARY" not in good.output
    assert "CANARY" in run("audit", str(kept), "--allow-simulated", "--words").output
    assert run("audit", str(kept)).exit_code == 1


def test_audit_for_a_machine(kept: Path) -> None:
    """--json is one object with all checks."""
    tree = json.loads(run("audit", str(kept), "--allow-simulated", "--json").output)
    assert tree["holds"] is True
    assert tree["attestation"]["verdict"] == "accepted"
    assert {check["id"]: check["outcome"] for check in tree["checks"]}["response"] == "PASS"


def test_audit_of_what_is_none(tmp_path: Path, kept: Path) -> None:
    """No file, another file, a cut file: one line, exit 2."""
    other = tmp_path / "other"
    other.write_bytes(b"not an audit file")
    cut = tmp_path / "cut"
    cut.write_bytes(kept.read_bytes()[:-1])
    assert is_one_line(run("audit", str(tmp_path / "absent")), 2, "absent", "cannot be read")
    assert is_one_line(run("audit", str(other)), 2, str(other), "confide chat --save")
    assert is_one_line(run("audit", str(cut)), 2, str(cut))


def test_verify_of_a_saved_bundle(tmp_path: Path, policy_file: Path) -> None:
    """The bundle is judged again offline: accepted with its nonce, refused without, authentic without a policy."""
    saved = tmp_path / "evidence.cbor"
    saved.write_bytes(a_peer().bundle)
    asked = ("verify", "bundle", str(saved), "--at", str(NOW))
    judged = (*asked, "--policy", str(policy_file), "--allow-simulated")
    assert run(*judged, "--nonce", NONCE.hex()).exit_code == 0
    assert run(*judged).exit_code == 1
    assert run(*judged, "--nonce", "ab" * 32).exit_code == 1
    tree = json.loads(run(*judged, "--nonce", NONCE.hex(), "--json").output)
    assert tree["verdict"] == "accepted"
    # A simulated root is not AMD's: without the policy that pins it, it is not even authentic.
    assert run(*asked).exit_code == 1
    assert is_one_line(run(*judged, "--nonce", "xyz"), 2, "--nonce")
    saved.write_bytes(b"x")
    assert is_one_line(run(*judged), 2, "evidence bundle")


def test_a_clock_that_is_off_is_told(tmp_path: Path, policy_file: Path) -> None:
    """When times alone are wrong, the clock is named as a possible cause."""
    saved = tmp_path / "evidence.cbor"
    saved.write_bytes(a_peer().bundle)
    result = run(
        "verify", "bundle", str(saved), "--at", str(NOW + 4000), "--policy", str(policy_file),
        "--allow-simulated", "--nonce", NONCE.hex(),
    )  # fmt: skip
    assert result.exit_code == 1
    assert "this machine's clock says 2027-01-15" in result.stderr


def test_verify_url_names_its_faults(policy_file: Path) -> None:
    """A URL that is none is exit 2, a gateway that is not there exit 1, each in one line."""
    assert is_one_line(run("verify", "http://"), 2, "URL")
    assert is_one_line(run("verify", "http://127.0.0.1:1"), 1, "gave no evidence")


def test_chat_names_its_faults(tmp_path: Path, policy_file: Path) -> None:
    """Policy, key file, URL: one line each, exit 2; an absent gateway exit 1."""
    there = ("chat", "hi", "--url", "http://127.0.0.1:1", "--policy")
    assert is_one_line(run(*there, str(tmp_path / "absent.toml")), 2, "absent.toml", "cannot be read")
    assert is_one_line(run(*there, str(policy_file), "--api-key-file", str(tmp_path / "key")), 2, "--api-key-file")
    (tmp_path / "key").write_text("two words\n")
    assert is_one_line(run(*there, str(policy_file), "--api-key-file", str(tmp_path / "key")), 2, "--api-key-file")
    assert is_one_line(run("chat", "hi", "--url", "nowhere", "--policy", str(policy_file)), 2, "URL")
    broken = tmp_path / "broken.toml"
    broken.write_text("id = ")
    assert is_one_line(run(*there, str(broken)), 2, "broken.toml", "TOML")


def test_module_and_script_are_one() -> None:
    """`python -m confide.cli` answers as `confide` does."""
    done = subprocess.run([sys.executable, "-m", "confide.cli", "--version"], capture_output=True, text=True)
    assert done.stdout == run("--version").output


def test_every_option_is_explained() -> None:
    """Every option of our own commands has help text."""
    for name in ("demo", "chat", "audit"):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (name, option.name)
