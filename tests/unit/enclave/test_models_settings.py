"""[[more_models]] in enclave.toml: every model by a name of its own, one file of one model as it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confide_enclave.engine.card import EngineLimits
from confide_enclave.manifest import build_manifest
from confide_enclave.models import make_loaders, read_cards, share_cores
from confide_enclave.settings import EnclaveSettings, load_settings
from confide_protocol.errors import ConfigError
from confide_protocol.keyset import MAX_MODELS
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import gguf

BASE = 'gateway_secret_file = "g"\nplatform = "simulated-sev-snp"\ndevice_socket = "d"\n'
ROOM = "[limits]\nmax_concurrent = 4096\n"
SERVER = 'kind = "openai"\nversion = "0.32.0"\nurl = "http://127.0.0.1:8000"\n'


def load(folder: Path, text: str) -> EnclaveSettings:
    (folder / "enclave.toml").write_text(BASE + text)
    return load_settings(folder / "enclave.toml")


def beside(name: str, more: str = "", engine: str = "") -> str:
    return f'[[more_models]]\nname = "{name}"\n{more}[more_models.engine]\n{engine}'


def test_one_model_is_written_as_before(tmp_path: Path) -> None:
    """[model] and [engine] are the first model; there are no others, and the places need not be shared."""
    settings = load(tmp_path, '[model]\nname = "a"\nweights = "w"\n[engine]\nmode = "fast"\n')
    (only,) = settings.models
    assert (only.name, only.weights, only.engine) == ("a", str(tmp_path / "w"), settings.engine)
    assert settings.limits.max_concurrent < only.max_requests


def test_models_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Each has its own weights, engine and limits; paths are relative to the file."""
    text = (
        ROOM
        + beside("b", 'weights = "b"\n', 'mode = "fast"\nconvert_dir = "c"\n')
        + beside("c", 'weights = "c"\n', SERVER)
    )
    first, second, third = load(tmp_path, text).models
    assert [each.name for each in (first, second, third)] == ["smollm2-135m-instruct", "b", "c"]
    assert (second.weights, third.weights) == (str(tmp_path / "b"), str(tmp_path / "c"))
    assert isinstance(second.engine, EngineLimits)
    assert (second.engine.mode, second.max_requests, third.max_requests) == ("fast", 40, 64)


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        (ROOM + beside("smollm2-135m-instruct"), "more_models.0.name", "named twice"),
        (ROOM + beside("b") + beside("b"), "more_models.1.name", "named twice"),
        (ROOM + beside("all-minilm-l6-v2") + "[embeddings]\n", "more_models.0.name", "named twice"),
        ('[model]\nname = "all-minilm-l6-v2"\n[embeddings]\n', "model.name", "named twice"),
        (ROOM + beside("b", engine=SERVER), "more_models.0.weights", "published directory"),
        (ROOM + beside("b") + beside("c", engine="max_sequences = 0\n"), "more_models.1.engine.max_sequences", "1"),
        (ROOM + "[[more_models]]\n", "more_models.0.name", "is missing"),
        (ROOM + beside("b", 'path = "x"\n'), "more_models.0.path", "not a known setting"),
        (ROOM + "".join(beside(f"m{n}") for n in range(MAX_MODELS)), "more_models", f"{MAX_MODELS - 1} items"),
        (beside("b"), "limits.max_concurrent", "set it to 80 or more"),
        (beside("b") + "[embeddings]\n", "limits.max_concurrent", "set it to 113 or more"),
        ("[limits]\nmax_concurrent = 79\n" + beside("b"), "limits.max_concurrent", "take the places"),
    ],
)
def test_a_fault_names_the_model_and_the_remedy(tmp_path: Path, text: str, field: str, remedy: str) -> None:
    """Two of one name, too many, too few places, and every fault within a table."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.field == field
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=MAX_MODELS))
def test_a_file_is_taken_exactly_if_its_names_differ(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    """Whatever the names: distinct ones are all served in their order, others are refused."""
    folder = tmp_path_factory.mktemp("f")
    text = f'[model]\nname = "{names[0]}"\n' + ROOM + "".join(beside(name) for name in names[1:])
    if len(set(names)) == len(names):
        assert [model.name for model in load(folder, text).models] == names
    else:
        with pytest.raises(ConfigError, match="named twice"):
            load(folder, text)


def test_the_example_shows_a_second_model(tmp_path: Path) -> None:
    """What deploy/examples/enclave.toml says in a comment is taken as it stands."""
    example = Path("deploy/examples/enclave.toml").read_text()
    section = example[example.index("# [[more_models]]") : example.index("# Answers /v1/embeddings")]
    settings = load(tmp_path, ROOM + section.replace("# ", ""))
    assert [model.name for model in settings.models] == ["smollm2-135m-instruct", "qwen3-0.6b"]


def toys(folder: Path) -> str:
    """Write two models and return the settings that name them."""
    for name, seed in (("a", 5), ("b", 6)):
        (folder / f"{name}.gguf").write_bytes(gguf.toy_llama(seed))
    limits = "context_tokens = 128\n"
    return (
        f'[model]\nname = "a"\nweights = "a.gguf"\n[engine]\n{limits}' + ROOM
        + beside("b", 'weights = "b.gguf"\n', limits + "max_sequences = 2\n")
    )  # fmt: skip


def test_the_manifest_names_every_model(tmp_path: Path) -> None:
    """A change of any model's weights or settings is another manifest; one of its waiting room is not."""
    text = toys(tmp_path)
    manifest = build_manifest(settings := load(tmp_path, text), *read_cards(settings))
    assert [each.model for each in manifest.models] == ["a", "b"]
    assert manifest.models[1].engine["max_sequences"] == 2
    assert "gpus" in manifest.engine

    def digest(text: str) -> bytes:
        changed = load(tmp_path, text)
        return build_manifest(changed, *read_cards(changed)).digest

    assert digest(text + "max_waiting = 1\n") == manifest.digest
    assert digest(text.replace("max_sequences = 2", "max_sequences = 3")) != manifest.digest
    assert digest(text.replace('"b.gguf"', '"a.gguf"')) != manifest.digest
    assert digest(text + "[more_models.answers]\ntop_p = 0.5\n") != manifest.digest


def test_the_manifest_of_several_is_printed_without_torch(tmp_path: Path) -> None:
    """`--manifest` shows those beside the first in a list of their own."""
    settings = load(tmp_path, toys(tmp_path))
    script = (
        "import sys; from click.testing import CliRunner; from confide_enclave.cli import enclave\n"
        f"r = CliRunner().invoke(enclave, ['--config', {str(tmp_path / 'enclave.toml')!r}, '--manifest'])\n"
        "print(r.output); assert not {'torch', 'tokenizers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    said = json.loads(done.stdout)
    assert said["manifest_digest"] == build_manifest(settings, *read_cards(settings)).digest.hex()
    (second,) = said["manifest"]["more_models"]
    assert (second["model"], second["engine"]["max_sequences"]) == ("b", 2)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (9, 4)])
def test_engines_of_our_own_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    """Those that name no threads have equal parts, one core being left; others keep out."""
    monkeypatch.setattr("confide_enclave.models._cores", lambda file: cores)
    text = ROOM + beside("b") + beside("c", engine="threads = 3\n") + beside("d", 'weights = "d"\n', SERVER)
    shared = share_cores("f", load(tmp_path, text)).models
    assert [getattr(model.engine, "threads", None) for model in shared] == [threads, threads, 3, None]


@pytest.mark.anyio
async def test_every_model_is_loaded_by_its_own_settings(tmp_path: Path) -> None:
    """Two engines beside each other, each with its own card; an absent file is named with its table."""
    settings = load(tmp_path, toys(tmp_path))
    engines = [load() for load in make_loaders("enclave.toml", settings)]
    assert [engine.card for engine in engines] == list(read_cards(settings)[0])
    for engine in engines:
        await engine.close()
    os.remove(tmp_path / "b.gguf")
    with pytest.raises(ConfigError, match=r"more_models\.0\.weights: is not there"):
        make_loaders("enclave.toml", settings)
