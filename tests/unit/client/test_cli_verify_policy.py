"""Policies through the command line: on a quote, a log, GPUs and whole bundles of every kind of CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confide.cli.verify import verify
from confide.cli.verify_url import bundle
from confide_attestation.evidence import encode_bundle

from tests.fakes.scene import NONCE, NOW, Scene
from tests.fakes.tdx_scene import DIRECT, DSTACK, GCP, TdxScene, genuine

assert bundle  # the group is whole once it is imported


@pytest.fixture(autouse=True)
def no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the serials that clients remember out of the user's own folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(verify, [*map(str, args), "--at", str(NOW)])


def written(scene: TdxScene, at: Path) -> Path:
    """Write a scene's evidence, each part as a file, and its policy."""
    evidence, endorsements, _ = scene.build()
    assert endorsements.tdx is not None
    (at / "bundle").write_bytes(encode_bundle(evidence, endorsements))
    (at / "quote").write_bytes(evidence.cpu.report)
    (at / "collateral").write_bytes(endorsements.tdx.collateral)
    for log in evidence.event_logs:
        (at / "log").write_bytes(log.data)
    (at / "policy.toml").write_text(scene.policy_text(evidence.manifest, genuine().root))
    return at


def said(result: Result) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(result.stdout)
    return tree


@pytest.mark.parametrize("allow", [True, False])
def test_a_quote_by_a_policy(tmp_path: Path, allow: bool) -> None:
    """Accepted as simulated hardware where policy and caller both allow it."""
    at = written(TdxScene(DIRECT), tmp_path)
    args: list[str | Path] = [
        "tdx",
        at / "quote",
        "--collateral",
        at / "collateral",
        "--policy",
        at / "policy.toml",
        "--json",
    ]
    result = run(*args, *(["--allow-simulated"] if allow else []))
    tree = said(result)
    assert (result.exit_code, tree["verdict"]) == ((0, "accepted") if allow else (1, "refused"))
    assert (tree["appraised"], tree["simulated"]) == (True, True)


@pytest.mark.parametrize("profile", [GCP, DSTACK])
def test_a_log_by_a_policy(tmp_path: Path, profile: str) -> None:
    """The quote is judged too; without collateral one line says where that lies."""
    at = written(TdxScene(profile), tmp_path)
    args: list[str | Path] = [
        "eventlog",
        at / "log",
        "--quote",
        at / "quote",
        "--policy",
        at / "policy.toml",
        "--allow-simulated",
    ]
    assert run(*args, "--collateral", at / "collateral").exit_code == 0
    result = run(*args)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "tcb?fmspc=" in result.stderr


@pytest.mark.parametrize("command", ["tdx", "eventlog", "snp"])
def test_a_policy_of_another_platform_is_one_line_and_exit_2(tmp_path: Path, command: str) -> None:
    """The line names the field."""
    at = written(TdxScene(DSTACK), tmp_path)
    evidence, endorsements, _ = Scene().build()
    assert endorsements.snp is not None
    (at / "snp.toml").write_text(Scene().policy_text(endorsements.snp, evidence.manifest))
    (at / "report").write_bytes(evidence.cpu.report)
    (at / "vek").write_bytes(endorsements.snp.vek)
    args: dict[str, list[str | Path]] = {
        "tdx": ["tdx", at / "quote", "--collateral", at / "collateral", "--policy", at / "snp.toml"],
        "eventlog": ["eventlog", at / "log", "--quote", at / "quote", "--policy", at / "snp.toml"],
        "snp": ["snp", at / "report", "--vek", at / "vek", "--policy", at / "policy.toml"],
    }
    result = run(*args[command])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "platform" in result.stderr


@pytest.mark.parametrize("profile", [DIRECT, GCP, DSTACK])
def test_a_bundle_of_a_td(tmp_path: Path, profile: str) -> None:
    """By a policy accepted, with a page that has its keyset; without one the quote is judged by Intel's root."""
    at = written(TdxScene(profile), tmp_path)
    args: list[str | Path] = [
        "bundle",
        at / "bundle",
        "--policy",
        at / "policy.toml",
        "--nonce",
        NONCE.hex(),
        "--allow-simulated",
    ]
    result = run(*args, "--html", at / "page.html", "--ear", at / "ear.json")
    assert result.exit_code == 0, result.output
    page = (at / "page.html").read_text()
    assert "SIMULATED HARDWARE" in page
    assert "Keyset digest" in page
    assert "Ends: this result" in page
    assert json.loads((at / "ear.json").read_text())["submods"]["cpu0"]["confide.simulated"] is True
    result = run("bundle", at / "bundle")
    assert result.exit_code == 1
    assert "root_untrusted" in result.stdout.splitlines()[-1]


def test_what_is_no_policy_is_one_line_and_exit_2(tmp_path: Path) -> None:
    """Any file in a policy's place, for every command that takes one."""
    at = written(TdxScene(DIRECT), tmp_path)
    (at / "text").write_text("hello")
    (at / "bytes").write_bytes(b"\xff\xfe\x00")
    for bad in (at / "quote", at / "text", at / "bytes", at, at / "absent"):
        for options in (["--collateral", str(at / "collateral")], []):
            judged = ["tdx", str(at / "quote")] if options else ["bundle", str(at / "bundle")]
            result = run(*judged, *options, "--policy", bad)
            assert result.exit_code == 2, (bad, result.output)
            (line,) = result.stderr.splitlines()
            assert str(bad) in line
