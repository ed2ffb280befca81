"""`confide model distill` on a toy: it learns, the engine loads what it wrote, and answers stay the same."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from confide_enclave.cli_model import model
from confide_enclave.engine.distill import train
from confide_enclave.engine.gguf import parse_gguf
from confide_enclave.engine.package import open_model, open_package
from confide_enclave.engine.weights import load_weights
from confide_protocol.errors import ConfigError

from tests.fakes import decoder as toy
from tests.fakes import gguf as fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toy.gguf").write_bytes(fake.toy_llama(5))
    (tmp_path / "prompts.txt").write_text("\n".join(f"hello {n}" for n in range(12)) + "\n\n")
    return tmp_path


def distill(folder: Path, *more: str, draft: str = "draft"):
    paths = [str(folder / "toy.gguf"), str(folder / draft), "--prompts", str(folder / "prompts.txt")]
    return CliRunner().invoke(model, ["distill", *paths, "--answer-tokens", "12", "--steps", "30", *more])


def test_it_learns_and_is_the_same_again(folder: Path) -> None:
    """The loss falls, the draft has the model's tokenizer, and the same seed gives the same bits."""
    told = distill(folder)
    assert told.exit_code == 0, told.output
    losses = [float(line.split()[-1]) for line in told.stderr.splitlines() if "loss" in line]
    assert losses[-1] < losses[0] * 0.7
    assert "held-out tokens guessed right: before " in told.stdout
    assert distill(folder, draft="again").exit_code == 0
    draft, again = open_package(folder / "draft"), open_package(folder / "again")
    assert draft.digest == again.digest
    whole = open_model(folder / "toy.gguf", "w8a8")
    assert draft.metadata.digest("tokenizer.") == whole.metadata.digest("tokenizer.")


def test_some_layers(folder: Path) -> None:
    """A draft of one layer has one, and runs."""
    assert distill(folder, "--layers", "1").exit_code == 0
    assert load_weights(open_package(folder / "draft"), torch.float32).config.layers == 1


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_an_untrained_student_computes_what_the_model_does(family: str) -> None:
    """Training starts from the model's own function, in every family: all layers kept, no step taken."""
    from confide_enclave.engine.distill import _Student

    tensors = toy.tensors(3, family, tied=False)
    gguf = parse_gguf(fake.write(toy.metadata(family), tensors), "toy.gguf")
    student, ids = _Student(gguf, (0, 1)), [5, 9, 70, 33, 12, 200]
    with torch.no_grad():
        found = student.forward(torch.tensor(ids)) @ student.head.t()
    assert torch.allclose(found.double(), torch.from_numpy(toy.oracle(tensors, ids, family)), atol=1e-4)
    same = train(gguf, (0, 1), [], steps=0, seed=0, report=print)
    assert all((same.array(name) == gguf.array(name)).all() for name in gguf.tensors)


@pytest.mark.parametrize(
    ("more", "field"),
    [(("--layers", "0,x"), "layers"), (("--layers", "7"), "layers"), (("--layers", "1,0"), "layers")],
)
def test_wrong_layers(folder: Path, more: tuple[str, ...], field: str) -> None:
    """Layers that the model does not have are refused before it answers anything."""
    told = distill(folder, *more)
    assert isinstance(told.exception, ConfigError)
    assert field in str(told.exception)


def test_wrong_files(folder: Path) -> None:
    """Prompts that cannot be read, too few of them, and a draft that is there already."""
    (folder / "draft").mkdir()
    assert "name a new directory" in str(distill(folder).exception)
    for data in (b"one\n", b"\xff\xfe\n\xff"):
        (folder / "prompts.txt").write_bytes(data)
        assert isinstance(distill(folder, draft="new").exception, ConfigError)
    assert not (folder / "new").exists()
