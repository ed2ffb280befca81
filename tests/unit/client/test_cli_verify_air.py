"""`confide verify air`: exit status, JSON, demands, and files of the wrong kind."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confide.cli.verify import verify

from tests.shared import shared_path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(verify, ["air", *map(str, args)])


@pytest.fixture
def vector() -> dict[str, Any]:
    path = shared_path("vectors", "air-v1", "vectors", "valid", "v1-tdx-with-nonce.json")
    return json.loads(path.read_text())


@pytest.fixture
def receipt(vector: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "receipt.cose"
    path.write_bytes(bytes.fromhex(vector["receipt_hex"]))
    return path


def test_an_authentic_receipt_exits_0(vector: dict[str, Any], receipt: Path) -> None:
    """Its claims are printed, and that nothing was appraised."""
    result = run(receipt, "--key", vector["public_key_hex"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("authentic, NOT appraised")
    tree = json.loads(run(receipt, "--key", vector["public_key_hex"], "--json").stdout)
    assert (tree["verdict"], tree["claims"]["air"]["issuer"]) == ("authentic", vector["claims"]["iss"])


@pytest.mark.parametrize(
    ("options", "failed"),
    [
        (["--key", "11" * 32], "air_signature"),
        (["--nonce", "00" * 32], "air_policy"),
        (["--model-hash", "00" * 32], "air_policy"),
        (["--max-age", "1"], "air_policy"),
    ],
)
def test_a_refusal_names_its_layer(vector: dict[str, Any], receipt: Path, options: list[str], failed: str) -> None:
    """Layers before it passed, layers after it were not reached."""
    result = run(receipt, "--key", vector["public_key_hex"], *options, "--json")
    checks = json.loads(result.stdout)["checks"]
    outcomes = [check["outcome"] for check in checks]
    at = outcomes.index("FAIL")
    assert (result.exit_code, checks[at]["id"]) == (1, failed)
    assert outcomes == ["PASS"] * at + ["FAIL"] + ["SKIP"] * (len(outcomes) - at - 1)


def test_what_is_no_receipt_exits_2(tmp_path: Path) -> None:
    """One line names the file or the option, and what is wrong."""
    other = tmp_path / "other"
    other.write_bytes(b"not a receipt")
    for arguments in ((other, "--key", "11" * 32), (other, "--key", "11"), (tmp_path / "none", "--key", "11" * 32)):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1
