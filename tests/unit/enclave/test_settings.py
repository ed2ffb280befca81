"""enclave.toml and the gateway's secret: every fault names file, field and remedy."""

import os
from pathlib import Path

import pytest
from confide_enclave.settings import DeviceSettings, Limits, load_gateway_secret, load_settings
from confide_protocol.errors import ConfigError

MINIMAL = 'gateway_secret_file = "g"\nplatform = "simulated-sev-snp"\ndevice_socket = "d"\n'

HARDWARE = 'gateway_secret_file = "g"\nplatform = "tdx"\n'
GPU_ROOTS = "[simulated]\n" + "".join(
    f'nvidia_{root}_root_spki_sha256 = "{"00" * 32}"\n' for root in ("device", "rim")
)


def write(folder: Path, text: str) -> Path:
    path = folder / "enclave.toml"
    path.write_text(text)
    return path


def test_a_minimal_file_has_defaults_and_resolved_paths(tmp_path):
    """Paths are relative to the file; limits are named and set."""
    settings = load_settings(write(tmp_path, MINIMAL + '[model]\nweights = "w.gguf"\n'))
    assert settings.gateway_secret_file == str(tmp_path / "g")
    assert settings.device_socket == str(tmp_path / "d")
    assert settings.model.weights == str(tmp_path / "w.gguf")
    assert (settings.host, settings.port, settings.shapes) == ("127.0.0.1", 0, ("bucketed", "none"))
    assert settings.limits == Limits()


def test_what_suits_the_packaged_model_is_no_other_ones_default(tmp_path):
    """Its makers' advice without weights, OpenAI's defaults with them; what is written counts in both."""
    for text, expected in {
        "": (0.2, 0.9, 0),
        '[model]\nname = "m"\n[model.answers]\nmax_tokens = 9\n': (0.2, 0.9, 9),
        '[model]\nweights = "w.gguf"\n': (1.0, 1.0, 0),
        '[model]\nweights = "w.gguf"\n[model.answers]\ntop_p = 0.8\n': (1.0, 0.8, 0),
    }.items():
        settings = load_settings(write(tmp_path, MINIMAL + text))
        for answers in (settings.model.answers, settings.models[0].answers):
            assert (answers.temperature, answers.top_p, answers.max_tokens) == expected


def test_the_example_is_the_default(tmp_path):
    """deploy/examples/enclave.toml shows every setting at its default."""
    example = load_settings(Path(__file__).parents[3] / "deploy/examples/enclave.toml")
    default = load_settings(write(tmp_path, MINIMAL))
    for name in ("shapes", "limits", "keyset", "engine", "model", "devices", "simulated", "gpus"):
        assert getattr(example, name) == getattr(default, name)
    shown = (Path(__file__).parents[3] / "deploy/examples/enclave.toml").read_text()
    assert all(f"{name} =" in shown for name in (*Limits.model_fields, *DeviceSettings.model_fields))


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        (MINIMAL.replace('device_socket = "d"', ""), "device_socket", "confide-sim"),
        (HARDWARE + 'device_socket = "d"', "device_socket", "remove it"),
        (HARDWARE + GPU_ROOTS, "simulated", "remove it"),
        (MINIMAL + "gpus = true", "simulated", "confide-sim"),
        (MINIMAL + "gpus = 1", "gpus", "boolean"),
        (MINIMAL + '[devices]\ntpm = "/dev/tpm0"', "devices", "real hardware"),
        (HARDWARE + '[devices]\nimds_url = "file:///x"', "devices.imds_url", "pattern"),
        (MINIMAL + GPU_ROOTS.replace("00", "zz"), "simulated.nvidia_device_root_spki_sha256", "pattern"),
        ("", "gateway_secret_file", "is missing"),
        (MINIMAL + 'listn = "x"', "listn", "not a known setting"),
        (MINIMAL + 'listen = "8080"', "listen", "pattern"),
        (MINIMAL + 'listen = "127.0.0.1:70000"', "listen", "65535"),
        (MINIMAL + "shapes = []", "shapes", "at least 1"),
        (MINIMAL + "[model.answers]\ntemperature = 2.5", "model.answers.temperature", "less than or equal to 2"),
        (MINIMAL + "[model]\nanswers = 1", "model.answers", "dictionary"),
        (MINIMAL + 'shapes = ["constant"]', "shapes", "bucketed"),
        (MINIMAL + 'shapes = ["none", "none"]', "shapes", "once"),
        (MINIMAL + "[limits]\nmax_request_bytes = -1", "limits.max_request_bytes", "greater"),
        (MINIMAL + '[limits]\nidle_timeout_s = "5"', "limits.idle_timeout_s", "number"),
        (MINIMAL + "[limits]\nidle_timeout_s = inf", "limits.idle_timeout_s", "less"),
        (MINIMAL + "[keyset]\nlifetime_s = 86401", "keyset.lifetime_s", "86400"),
        (MINIMAL + "[keyset]\nlifetime_s = 300", "keyset.grace_s", "less than"),
        (MINIMAL + '[model]\nkind = "vllm"', "model.kind", "torch"),
        (MINIMAL.replace("simulated-sev-snp", "none"), "platform", "simulated-sev-snp"),
        ("x = [", "file", "not TOML"),
        ("\x00", "file", "not TOML"),
    ],
)
def test_a_fault_is_one_line_with_file_field_and_remedy(tmp_path, text, field, remedy):
    """The closed keys, types and ranges."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert (caught.value.file, caught.value.field) == (str(path), field)
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_hardware_needs_no_socket_and_its_devices_may_lie_elsewhere(tmp_path):
    """Each real platform loads; a device's path is relative to the file, an address stays as it is."""
    for platform in ("sev-snp", "tdx", "azure-sev-snp", "azure-tdx", "dstack"):
        text = HARDWARE.replace("tdx", platform) + 'gpus = true\nendorsements_file = "e"\n[devices]\ntpm = "t"\n'
        settings = load_settings(
            write(tmp_path, text + 'dstack_socket = "/run/d"\nimds_url = "http://127.0.0.1:1"')
        )
        assert (settings.platform, settings.is_simulated, settings.gpus) == (platform, False, True)
        assert settings.endorsements_file == str(tmp_path / "e")
        assert (settings.devices.tpm, settings.devices.dstack_socket) == (str(tmp_path / "t"), "/run/d")
        assert (settings.devices.imds_url, settings.devices.ccel) == ("http://127.0.0.1:1", None)


def test_simulated_gpus_need_simulated_roots(tmp_path):
    """They are named in a table that says so."""
    settings = load_settings(write(tmp_path, MINIMAL + "gpus = true\n" + GPU_ROOTS))
    assert settings.is_simulated
    assert settings.simulated.nvidia_rim_root_spki_sha256 == "00" * 32


def test_an_absent_file_is_named(tmp_path):
    """The message says which file and what to look at."""
    with pytest.raises(ConfigError, match=r"no\.toml: file: cannot be read"):
        load_settings(tmp_path / "no.toml")


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_is_read_without_its_line_end(tmp_path):
    """What openssl and echo write is what is meant."""
    assert load_gateway_secret(secret_file(tmp_path, b"k" * 32 + b"\n")) == b"k" * 32


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610])
def test_a_secret_that_others_may_read_is_refused(tmp_path, mode):
    """The remedy is the command to type."""
    with pytest.raises(ConfigError, match="chmod 600"):
        load_gateway_secret(secret_file(tmp_path, b"k" * 32, mode))


@pytest.mark.parametrize(
    "content", [b"", b"short", b"k" * 31, b"k" * 20 + b"\n" + b"k" * 20, b"\xff" * 40, b"k" * 5000]
)
def test_a_secret_that_is_none_is_refused(tmp_path, content):
    """Too short, not one line of text, or a file of another kind; it is never shown."""
    with pytest.raises(ConfigError) as caught:
        load_gateway_secret(secret_file(tmp_path, content))
    assert "kkk" not in str(caught.value)


def test_a_secret_is_a_regular_file(tmp_path):
    """No folder, no pipe, and not nothing; a link counts as what it leads to."""
    real = secret_file(tmp_path, b"k" * 32)
    (tmp_path / "link").symlink_to(real)
    assert load_gateway_secret(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent"):
        with pytest.raises(ConfigError):
            load_gateway_secret(path)
