"""The card: what the manifest says of the model, without torch and before it is loaded."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from confide_enclave.engine.card import EngineLimits, default_weights, read_card
from confide_enclave.engine.package import read_weights
from confide_protocol.errors import ConfigError
from confide_protocol.settings import parse_toml

from tests.fakes import gguf as fake

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.gguf"
    path.write_bytes(fake.toy_llama())
    return path


def test_card(toy: Path) -> None:
    """Digests are of what is computed with, of the file, of its tokenizer entries; settings are plain values."""
    limits = EngineLimits(context_tokens=64)
    card = read_card(toy, "toy", limits)
    assert card.weights_digest == hashlib.sha256((toy.parent / "toy.w8a8" / "package.json").read_bytes()).digest()
    assert card.context_tokens == 64
    assert (card.engine["mode"], card.engine["scheme"], card.engine["dtype"]) == ("exact", "w8a8", "int8")
    assert card.engine["source"] == hashlib.sha256(toy.read_bytes()).hexdigest()
    plain = read_card(toy, "toy", EngineLimits(context_tokens=64, mode="fast", scheme="none", dtype="float32"))
    assert plain.weights_digest == hashlib.sha256(toy.read_bytes()).digest()
    assert (plain.engine["mode"], plain.engine["dtype"]) == ("fast", "float32")
    changed = fake.toy_metadata() | {"tokenizer.chat_template": "other"}
    toy.write_bytes(fake.write(changed, fake.toy_tensors()))
    assert read_card(toy, "toy", limits).tokenizer_digest != card.tokenizer_digest
    toy.write_bytes(fake.write(fake.toy_metadata() | {"general.name": "other"}, fake.toy_tensors()))
    assert read_card(toy, "toy", limits).tokenizer_digest == card.tokenizer_digest


def test_the_default_model_is_the_pinned_file() -> None:
    """`make setup` unpacked exactly the file that was examined."""
    _, digest = read_weights(default_weights(), SMOLLM2_SHA256)
    assert digest.hex() == SMOLLM2_SHA256


def test_reading_the_card_needs_no_torch() -> None:
    """The manifest can be computed where torch is not installed."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from confide_enclave.engine.card import *; print(read_card(default_weights(), 'm').engine['source'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SMOLLM2_SHA256


def test_faults_name_file_and_remedy(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent, unreadable and wrong files are one line each."""
    with pytest.raises(ConfigError, match=r"absent.gguf: weights: cannot be read \(No such file"):
        read_card(tmp_path / "absent.gguf", "m")
    with pytest.raises(ConfigError, match=f"sha256: is [0-9a-f]{{64}}, expected {'0' * 64}"):
        read_weights(toy, "0" * 64)
    with pytest.raises(ConfigError, match="context_tokens: is over what the model was trained for; at most 256"):
        read_card(toy, "m", EngineLimits(context_tokens=512))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ConfigError, match="the model package is missing; run `make setup`"):
        default_weights()


def test_limits_are_closed_and_bounded() -> None:
    """Settings have known names, right types and ranges."""
    assert parse_toml(b"max_sequences = 2", EngineLimits, "f") == EngineLimits(max_sequences=2)
    for text in (b"max_sequences = 0", b"dtype = 'int3'", b"context_tokens = 1.5", b"speed = 'high'"):
        with pytest.raises(ConfigError, match=f"^f: {text.split()[0].decode()}: "):
            parse_toml(text, EngineLimits, "f")
    for text in (b"scheme = 'w4a16'", b"cache_tokens = 100"):
        with pytest.raises(ConfigError, match=r"mode exact and scheme w8a8 go|holds less than one context"):
            parse_toml(text, EngineLimits, "f")


def test_mode_and_scheme_go_together() -> None:
    """Fast mode takes w8a16 where none is named; w8a8 is exact mode's alone, the others are fast mode's."""
    assert parse_toml(b"", EngineLimits, "f").scheme == "w8a8"
    assert parse_toml(b"mode = 'fast'", EngineLimits, "f").scheme == "w8a16"
    assert EngineLimits(mode="fast") == EngineLimits(mode="fast", scheme="w8a16")
    for scheme in ("w8a16", "w4a16", "none"):
        assert EngineLimits(mode="fast", scheme=scheme).scheme == scheme
        with pytest.raises(
            ValueError, match="mode exact and scheme w8a8 go together; the others are for mode fast"
        ):
            EngineLimits(scheme=scheme)
    with pytest.raises(ConfigError, match="mode exact and scheme w8a8 go together; the others are for mode fast"):
        parse_toml(b"mode = 'fast'\nscheme = 'w8a8'", EngineLimits, "f")


def test_the_card_of_fast_mode(toy: Path) -> None:
    """It names the scheme that was taken, and what it computes in."""
    card = read_card(toy, "toy", EngineLimits(context_tokens=64, mode="fast", dtype="bfloat16"))
    assert (card.engine["mode"], card.engine["scheme"], card.engine["dtype"]) == ("fast", "w8a16", "bfloat16")
    assert card.weights_digest == hashlib.sha256((toy.parent / "toy.w8a16" / "package.json").read_bytes()).digest()
