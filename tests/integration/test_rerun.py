"""An answer of the real stack, kept by its client, run again by an auditor."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confide.audit import AuditFile, audit_file, parse_audit_file
from confide.cli import main
from confide_enclave.engine.card import default_weights

from tests.fakes import gguf
from tests.fakes.stack import Stack, ask


@pytest.fixture(scope="module")
def kept(stack: Stack) -> AuditFile:
    """Sampled, with a seed that the enclave drew."""
    with stack.openai() as client:
        ask(client, temperature=0.8, max_tokens=24)
        assert client.last_receipt is not None
        return audit_file(client.last_receipt, stack.ground.policy_file.read_bytes(), disclose=True)


def audit(folder: Path, kept: AuditFile, weights: Path, *options: str) -> Result:
    file = folder / "kept.confide"
    file.write_bytes(kept.encoded)
    arguments = ["audit", str(file), "--allow-simulated", "--rerun", "--weights", str(weights), *options]
    return CliRunner().invoke(main, arguments)


def test_the_same_answer_comes_out_again(kept: AuditFile, tmp_path: Path) -> None:
    """Evidence, receipt, words and re-run hold; the signed transcript comes out, at any number of threads."""
    result = audit(tmp_path, kept, default_weights(), "--threads", "1")
    assert result.exit_code == 0, result.stdout
    assert "PASS rerun_answer — the same answer, bit for bit" in result.stdout
    assert "PASS rerun_transcript" in result.stdout
    checks = json.loads(audit(tmp_path, kept, default_weights(), "--threads", "2", "--json").stdout)["checks"]
    found = {check["id"]: check["outcome"] for check in checks if check["id"].startswith("rerun_")}
    assert len(found) == 8
    assert set(found.values()) == {"PASS"}


def test_other_weights_and_hidden_words_are_refused(kept: AuditFile, tmp_path: Path) -> None:
    """A model that is not the manifest's fails before it runs; a file without words has nothing to run."""
    toy = tmp_path / "toy.gguf"
    metadata = gguf.toy_metadata() | {"llama.context_length": 8192}
    toy.write_bytes(gguf.write(metadata, gguf.toy_tensors()))
    result = audit(tmp_path, kept, toy)
    assert result.exit_code == 1
    assert "FAIL rerun_weights" in result.stdout
    assert "SKIP rerun_answer" in result.stdout
    result = audit(tmp_path, replace(kept, exchange=None), default_weights())
    assert result.exit_code == 1
    assert "FAIL rerun_answer — the words are not disclosed" in result.stdout
    assert parse_audit_file((tmp_path / "kept.confide").read_bytes()).exchange is None
