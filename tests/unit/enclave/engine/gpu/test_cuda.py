"""The choice of a GPU, and what it is asked to hold: counted, and refused in words of ours."""

import threading
from pathlib import Path

import pytest
import torch
from confide_enclave.engine.card import EngineLimits, choose_dtype, make_card
from confide_enclave.engine.config import DecoderConfig
from confide_enclave.engine.cuda import CudaLane, choose_gpu, left_over
from confide_enclave.engine.gpu import Need, count_need, too_little
from confide_enclave.settings import load_settings
from confide_kernels.selftest import BUILDING
from confide_protocol.errors import ConfigError
from pydantic import ValidationError

from tests.fakes import decoder as toy

GIB = 1 << 30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One A100, to all that is asked; each test takes one thing away."""
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (8, 0))
    return monkeypatch


def test_a_gpu_that_is_there(machine: pytest.MonkeyPatch) -> None:
    """It is named as torch names it."""
    machine.setattr(torch.cuda, "device_count", lambda: 3)
    assert choose_gpu("cuda") == torch.device("cuda", 0)
    assert choose_gpu("cuda:2") == torch.device("cuda", 2)


@pytest.mark.parametrize(
    ("owner", "name", "value", "said"),
    [
        (torch.version, "cuda", None, "a torch that is built with CUDA"),
        (torch.cuda, "device_count", lambda: 0, "names GPU 0, and there are 0"),
        (torch.cuda, "get_device_capability", lambda number: (7, 5), r"8\.0 or newer.* has 7\.5"),
    ],
)
def test_what_is_missing_is_named(
    machine: pytest.MonkeyPatch, owner: object, name: str, value: object, said: str
) -> None:
    """With the remedy, and the other one that always helps."""
    machine.setattr(owner, name, value)
    with pytest.raises(ConfigError, match=rf'engine: device: .*{said}.*; or set device = "cpu"'):
        choose_gpu("cuda")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 11040).",
            "a newer NVIDIA driver, one for CUDA 12.9",
        ),
        ("Found no NVIDIA driver on your system.", "an NVIDIA driver and a GPU"),
        ("CUDA driver initialization failed, you might not have a CUDA gpu.", "an NVIDIA driver and a GPU"),
    ],
)
def test_a_driver_that_does_not_serve(machine: pytest.MonkeyPatch, text: str, said: str) -> None:
    """Too old or not there: torch's own text is not repeated."""

    def refuse() -> None:
        raise RuntimeError(text)

    machine.setattr(torch.cuda, "init", refuse)
    with pytest.raises(ConfigError, match=said) as caught:
        choose_gpu("cuda:0")
    assert "system" not in str(caught.value)


def test_without_triton(machine: pytest.MonkeyPatch) -> None:
    """The extra that brings it is named."""
    machine.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'confide\[gpu\]'"):
        choose_gpu("cuda")


def test_without_a_compiler(machine: pytest.MonkeyPatch) -> None:
    """Triton would ask for one amid the self-test; any that it takes will do."""
    machine.delenv("CC", raising=False)
    machine.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"a C compiler.* install gcc and libc6-dev"):
        choose_gpu("cuda")
    machine.setattr("shutil.which", lambda name: "/usr/bin/clang" if name == "clang" else None)
    assert choose_gpu("cuda")


def config(**changed) -> DecoderConfig:
    """The published 0.6B shape."""
    shape = {
        "layers": 28,
        "width": 1024,
        "heads": 16,
        "kv_heads": 8,
        "head_dim": 128,
        "hidden": 3072,
        "vocabulary": 151_936,
        "context_tokens": 40_960,
        "rope_base": 1e6,
        "epsilon": 1e-6,
    }
    return DecoderConfig(**shape | changed)


def test_need_is_counted() -> None:
    """Weights as they lie in the arrays, a cache by its rows; twice the sequences, twice the cache."""
    limits = EngineLimits(device="cuda", max_sequences=64)
    arrays = toy.model(toy.tensors(1), "w8a8").arrays
    need = count_need(config(), arrays, limits, limits.pages)
    table = 8 * limits.context_tokens * 128
    assert need.weights == table + sum(array.nbytes for array in arrays.values())
    assert need.cache == 64 * 4096 * 28 * 2 * 8 * (128 + 4)
    floats = toy.model(toy.tensors(1), "none").arrays
    fast = EngineLimits(device="cuda", mode="fast", scheme="none", max_sequences=64)
    matrices = sum(array.nbytes for name, array in floats.items() if name.endswith(".rows"))
    assert count_need(config(), floats, fast, 1).weights == (
        table + sum(array.nbytes for array in floats.values()) - matrices // 2
    )
    longer = EngineLimits(device="cuda", max_sequences=64, prefill_chunk_tokens=1024)
    assert count_need(config(), arrays, longer, limits.pages).steps > need.steps


def test_long_prompts_keep_no_scores() -> None:
    """Only spans of few queries do: eight thousand rows of a prompt take what their states do."""
    limits = EngineLimits(device="cuda", max_sequences=4, prefill_chunk_tokens=8192)
    kept = 4 * 16 * (32 * 16) * limits.context_tokens
    states = count_need(config(), {}, limits.model_copy(update={"context_tokens": 1}), 1).steps
    assert kept < count_need(config(), {}, limits, 1).steps < states + 2 * kept


def test_too_little_memory_is_refused_with_the_numbers() -> None:
    """All of them, and which settings to lower."""
    said = str(too_little(Need(50 * GIB, 22 * GIB, 3 * GIB), 70 * GIB, 80 * GIB))
    for part in ("75.0 GiB", "weights 50.0", "cache 22.0", "step 3.0", "70.0 of 80.0", "lower cache_tokens"):
        assert part in said


def test_only_what_one_stream_left_is_overwritten() -> None:
    """Memory that a tensor holds, that waits for another stream, or is of another engine, is left alone."""

    def segment(device: int, stream: int, *states: str) -> dict:
        blocks = [{"address": 100 * n, "size": n, "state": state} for n, state in enumerate(states, 1)]
        return {"device": device, "stream": stream, "blocks": blocks}

    segments = [
        segment(0, 7, "active_allocated", "inactive", "active_awaiting_free", "inactive"),
        segment(0, 8, "inactive"),
        segment(1, 7, "inactive"),
    ]
    assert list(left_over(segments, 0, 7)) == [(200, 2), (400, 4)]


def test_nothing_is_given_back_amid_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another engine's, of which torch knows in every thread: whoever ends waits for it."""
    given_back = threading.Event()
    monkeypatch.setattr(torch.cuda, "empty_cache", given_back.set)
    lane = object.__new__(CudaLane)
    with BUILDING:
        ending = threading.Thread(target=lane.release)
        ending.start()
        assert not given_back.wait(0.2)
    ending.join(10)
    assert given_back.is_set()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CUDA", "cuda:123", "cpu:0"])
def test_devices_that_are_none(device: str) -> None:
    """The settings know the CPU and CUDA's GPUs by number."""
    with pytest.raises(ValidationError):
        EngineLimits(device=device)


@pytest.mark.parametrize(
    "more", [{"speculate": "draft", "draft": "x"}, {"speculate": "layers", "draft_layers": (0,)}]
)
def test_models_that_guess_are_for_cpus(more: dict) -> None:
    """Refused by name; looking up works."""
    assert EngineLimits(device="cuda", speculate="lookup").is_on_gpu
    with pytest.raises(ValidationError, match="lookup"):
        EngineLimits(device="cuda", **more)


def test_the_manifest_names_the_kind_of_device() -> None:
    """Which of several GPUs it is decides nothing, and is not measured."""
    model = toy.model(toy.tensors(1), "w8a8")
    cards = [
        make_card(model, "toy", EngineLimits(device=name, context_tokens=64)) for name in ("cuda", "cuda:3", "cpu")
    ]
    assert [card.engine["device"] for card in cards] == ["cuda", "cuda", "cpu"]
    assert cards[0].engine == cards[1].engine
    assert choose_dtype(EngineLimits(device="cuda", mode="fast")) == "bfloat16"


@pytest.mark.parametrize("platform", ["sev-snp", "simulated-sev-snp"])
def test_prompts_go_to_no_gpu_that_is_not_attested(tmp_path: Path, platform: str) -> None:
    """Neither that of the first model nor that of another; simulated hardware is no exception."""
    simulated = platform.startswith("simulated")
    head = f'gateway_secret_file = "g"\nplatform = "{platform}"\n' + 'device_socket = "d"\n' * simulated
    room = "[limits]\nmax_concurrent = 4096\n"
    file = tmp_path / "enclave.toml"
    for field, tables in (
        ("engine.device", '[engine]\ndevice = "cuda"\n'),
        ("more_models.0.engine.device", '[[more_models]]\nname = "b"\n[more_models.engine]\ndevice = "cuda:1"\n'),
    ):
        file.write_text(head + room + tables)
        with pytest.raises(ConfigError, match=rf"{field}: is a GPU, .* set gpus = true"):
            load_settings(file)
        roots = "".join(f'nvidia_{name}_root_spki_sha256 = "{"0" * 64}"\n' for name in ("device", "rim"))
        file.write_text(head + "gpus = true\n" + room + tables + f"[simulated]\n{roots}" * simulated)
        assert any(model.engine.is_on_gpu for model in load_settings(file).models)
