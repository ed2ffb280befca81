"""chat, verify URL and audit against the real stack."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confide.cli import main

from tests.fakes.stack import QUESTION, Stack


@pytest.fixture
def there(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that every live command takes; a state folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    key = stack.ground.write("cli.key", stack.ground.api_key + "\n")
    return ["--policy", str(stack.ground.policy_file), "--allow-simulated", "--api-key-file", str(key)]


def run(*arguments: str, input: str | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=input)


def test_one_prompt_and_its_audit_file(stack: Stack, there: list[str], tmp_path: Path) -> None:
    """The answer alone is on stdout, what was verified on stderr, and the kept file holds offline."""
    kept = str(tmp_path / "kept.audit")
    result = run("chat", QUESTION, "--url", stack.url, *there, "--save", kept)
    assert result.exit_code == 0, result.stderr
    assert "Paris" in result.stdout
    assert "accepted (SIMULATED HARDWARE)" in result.stderr
    assert "signed by" in result.stderr
    assert run("audit", kept, "--allow-simulated").exit_code == 0
    assert run("audit", kept, *there[:3]).exit_code == 0
    assert Path(kept).stat().st_mode & 0o777 == 0o600
    part = str(tmp_path / "part.audit")
    assert run("audit", kept, "--disclose", "message:0", "--to", part).exit_code == 0
    judged = run("audit", part, *there[:3], "--words")
    assert judged.exit_code == 0, judged.stdout
    assert "PASS part — message 0 stands in the signed transcript" in judged.stdout
    assert QUESTION not in judged.stdout
    assert "recomputed here" not in judged.stdout
    for wrong in ("message:9", "message", "word:0", "chunk:-1"):
        refused = run("audit", kept, "--disclose", wrong, "--to", part)
        assert (refused.exit_code, refused.stdout) == (2, "")


def test_a_conversation(stack: Stack, there: list[str]) -> None:
    """Questions from stdin, one answer each, until an empty line."""
    result = run(
        "chat",
        "--url",
        stack.url,
        *there,
        "--system",
        "Be brief.",
        "--max-tokens",
        "4",
        input="Hi\nHi\n\nunasked\n",
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("outcome") == 2


def test_a_refused_question_is_one_line(stack: Stack, there: list[str]) -> None:
    """What the enclave refuses, sealed, is told with its own words and exit 1."""
    result = run("chat", "word " * 20_000, "--url", stack.url, *there)
    assert result.exit_code == 1
    assert "context" in result.stderr.splitlines()[-1]


def test_a_question_that_is_no_text_is_one_line(stack: Stack, there: list[str]) -> None:
    """Bytes that are not UTF-8 are named before anything is sealed; exit 2."""
    result = run("chat", "\udcff", "--url", stack.url, *there)
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr.splitlines()[-1]


def test_a_policy_that_does_not_match_shows_every_check(stack: Stack, there: list[str]) -> None:
    """Refused evidence: the whole transcript, then one line that names what failed; exit 1."""
    text = stack.ground.policy_file.read_text()
    stricter = stack.ground.write("strict-cli.toml", text.replace("vmpl = [0]", "vmpl = [1]"))
    result = run("chat", "hi", "--url", stack.url, "--policy", str(stricter), *there[2:])
    assert result.exit_code == 1
    assert "FAIL vmpl" in result.stderr
    assert "PASS report_sig" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("confide chat: refused: vmpl")


def test_live_evidence_judged_and_kept(stack: Stack, there: list[str], tmp_path: Path) -> None:
    """verify URL accepts with a fresh nonce; the bundle that it saved is accepted again with that nonce alone."""
    saved = str(tmp_path / "evidence.cbor")
    page, ear = tmp_path / "page.html", tmp_path / "ear.json"
    result = run("verify", stack.url, *there, "--save", saved, "--html", str(page), "--ear", str(ear))
    assert result.exit_code == 0, result.stderr
    assert "SIMULATED HARDWARE" in page.read_text()
    assert "Ends: this result" in page.read_text()
    assert json.loads(ear.read_text())["ear.status"] == "contraindicated"
    assert "PASS nonce" in result.stdout
    nonce = result.stdout.split()[1].rstrip(";")
    assert run("verify", "bundle", saved, *there[:3], "--nonce", nonce).exit_code == 0
    assert run("verify", "bundle", saved, *there[:3], "--nonce", "00" * 32).exit_code == 1


def test_live_evidence_for_a_machine(stack: Stack, there: list[str]) -> None:
    """--json prints one object; without the switch for simulated hardware it says refused and exits 1."""
    assert json.loads(run("verify", stack.url, *there, "--json").stdout)["verdict"] == "accepted"
    refused = run("verify", stack.url, *there[:2], *there[3:], "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["verdict"] == "refused"


def test_live_evidence_without_a_policy(stack: Stack, there: list[str]) -> None:
    """Without a policy a simulated report is not authentic: its root is not AMD's."""
    result = run("verify", stack.url, *there[3:])
    assert result.exit_code == 1
    assert "ark_pin" in result.stdout


def test_a_wrong_key_is_one_line(stack: Stack, there: list[str], tmp_path: Path) -> None:
    """401 in clear: exit 1, one line."""
    (tmp_path / "wrong").write_text("confide-wrong")
    result = run("verify", stack.url, *there[:3], "--api-key-file", str(tmp_path / "wrong"))
    assert result.exit_code == 1
    told = "no API key was given, or the gateway does not know it: api_key=, for commands --api-key-file or "
    assert (
        result.stderr.strip()
        == f"confide verify: the gateway answered 401 in clear, unauthenticated: {told}CONFIDE_API_KEY"
    )
