"""`confide model quantize`: the table, what it writes, and each fault as one line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confide.cli import main
from confide_enclave.cli_quantize import SCHEMES
from confide_enclave.engine.package import open_package

from tests.fakes import gguf


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toy.gguf").write_bytes(gguf.toy_llama())
    return tmp_path / "toy.gguf"


def quantize(*args: object) -> Result:
    return CliRunner().invoke(main, ["model", "quantize", *map(str, args)])


def refused(*args: object) -> str:
    result = quantize(*args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_every_scheme_is_written_and_measured(toy: Path, tmp_path: Path) -> None:
    """Each scheme gets a package that opens and a row of figures after float32's own."""
    figures = json.loads(quantize(toy, tmp_path / "made", "--windows", 1, "--json").stdout)
    assert [each["scheme"] for each in figures] == ["float32", *SCHEMES]
    assert figures[0]["agreement"] == 1
    for each in figures[1:]:
        package = open_package(tmp_path / f"made/toy.{each['scheme']}")
        assert package.scheme == each["scheme"]
        assert each["weight_bytes"] == sum(array.nbytes for array in package.arrays.values())
        assert each["weight_bytes"] < figures[0]["weight_bytes"]


def test_table(toy: Path, tmp_path: Path) -> None:
    """For a person it is a table with a line for each scheme that was asked for."""
    lines = quantize(toy, tmp_path / "made", "--windows", 1, "--scheme", "w8a8").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["scheme", "float32", "w8a8"]
    assert lines[2].split()[1] == "exact"


def test_faults(toy: Path, tmp_path: Path) -> None:
    """A text too short or not UTF-8, no model, and a package that is there already are each refused."""
    (tmp_path / "short.txt").write_text("Too short.")
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "toy.w8a16").mkdir()
    assert "at least 512" in refused(toy, tmp_path / "made", "--text", tmp_path / "short.txt")
    assert "not UTF-8" in refused(toy, tmp_path / "made", "--text", tmp_path / "odd.txt")
    assert "cannot be read" in refused(toy, tmp_path / "made", "--text", tmp_path / "none.txt")
    assert "cannot be read" in refused(tmp_path / "none.gguf", tmp_path / "made")
    assert "exists" in refused(toy, tmp_path, "--windows", 1)
    assert "cannot be written" in refused(toy, toy / "made", "--windows", 1)
