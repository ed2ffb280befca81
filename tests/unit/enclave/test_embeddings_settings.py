"""[embeddings] in enclave.toml: off unless asked for; on, the encoder is in the manifest, read without torch."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from confide_enclave.engine.encoder import BertEmbedder
from confide_enclave.manifest import build_manifest
from confide_enclave.settings import EmbeddingsSettings, EnclaveSettings, load_settings
from confide_protocol.errors import ConfigError

from tests.fakes import encoder
from tests.fakes.engine import CARD

BASE = 'gateway_secret_file = "g"\nplatform = "simulated-sev-snp"\ndevice_socket = "d"\n'
TOY = '[embeddings]\nname = "toy"\nweights = "encoder"\n'


def load(folder: Path, text: str) -> EnclaveSettings:
    (folder / "enclave.toml").write_text(BASE + text)
    return load_settings(folder / "enclave.toml")


def embedder_of(settings: EnclaveSettings) -> BertEmbedder:
    wanted = settings.embeddings
    assert wanted is not None
    return BertEmbedder(Path(wanted.weights or ""), wanted.name, wanted)


def test_off_unless_asked_for(tmp_path: Path) -> None:
    """Without the section there are no embeddings; with it alone, the defaults, which the example shows."""
    assert load(tmp_path, "").embeddings is None
    assert load(tmp_path, "[embeddings]\n").embeddings == EmbeddingsSettings()
    example = Path("deploy/examples/enclave.toml").read_text()
    section = example[example.index("# [embeddings]") : example.index("[keyset]")].replace("# ", "", 1)
    shown = tomllib.loads(section.replace("\n# ", "\n"))["embeddings"]
    assert shown.keys() == EmbeddingsSettings.model_fields.keys()
    assert EmbeddingsSettings(**shown | {"weights": None}) == EmbeddingsSettings()


def test_paths_and_faults(tmp_path: Path) -> None:
    """The directory is relative to the file; a wrong bound is named."""
    settings = load(tmp_path, TOY)
    assert settings.embeddings is not None
    assert settings.embeddings.weights == str(tmp_path / "encoder")
    with pytest.raises(ConfigError, match=r"embeddings\.max_texts"):
        load(tmp_path, "[embeddings]\nmax_texts = 0\n")


def test_manifest(tmp_path: Path) -> None:
    """The encoder's name and digests are in the manifest, and so in its digest."""
    settings = load(tmp_path, TOY)
    encoder.write(tmp_path / "encoder")
    card = embedder_of(settings).card
    manifest = build_manifest(settings, [CARD], card)
    assert manifest.engine["embeddings"] == "toy"
    assert manifest.engine["embeddings_weights"] == card.weights_digest.hex()
    assert manifest.engine["embeddings_tokenizer"] == card.tokenizer_digest.hex()
    assert manifest.digest != build_manifest(settings, [CARD]).digest


def test_the_manifest_is_printed_without_torch(tmp_path: Path) -> None:
    """`--manifest` names the encoder that would serve, and needs no torch for it."""
    settings = load(tmp_path, TOY)
    encoder.write(tmp_path / "encoder")
    script = (
        "import sys; from click.testing import CliRunner; from confide_enclave.cli import enclave\n"
        f"r = CliRunner().invoke(enclave, ['--config', {str(tmp_path / 'enclave.toml')!r}, '--manifest'])\n"
        "print(r.output); assert not {'torch', 'tokenizers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    engine = json.loads(done.stdout)["manifest"]["engine"]
    assert engine["embeddings_weights"] == embedder_of(settings).card.weights_digest.hex()
    assert engine["embeddings"] == "toy"
