"""Settings of an engine in another process: closed, of this machine, and nothing that would show a prompt."""

import tomllib
from pathlib import Path

import pytest
from confide_enclave.remote.card import digest_command, digest_directory, read_card
from confide_enclave.remote.servers import SERVERS
from confide_enclave.remote.settings import RemoteSettings
from confide_enclave.settings import load_settings
from confide_protocol.errors import ConfigError
from confide_protocol.settings import parse_toml
from pydantic import ValidationError

from tests.fakes import checkpoint
from tests.unit.enclave.remote.support import model, settings, started

ROOT = Path(__file__).parents[4]
BASE = 'kind = "openai"\nversion = "0.32.0"\n'
COMMAND = BASE + 'command = ["vllm"]\n'


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_toml(text.encode(), RemoteSettings, "f")
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:8000", "http://localhost:8000", "https://127.0.0.1:8000", "http://127.0.0.1",
        "http://127.0.0.1:99999", "http://127.0.0.1:0", "http://user@127.0.0.1:8000", "http://127.0.0.1:8000/v1",
        "http://[fe80::1]:8000", "http://0.0.0.0:8000", "http://127.0.0.1.example.org:80", "http://127.0.0.999:80",
        "127.0.0.1:8000", "", "http://127.0.0.1:\u0668\u0660",
    ],
)  # fmt: skip
def test_only_this_machine_is_asked(url) -> None:
    """A name could be anybody's, and the wire anybody's to read."""
    assert "is not of this machine" in refused(BASE + f'url = "{url}"')


@pytest.mark.parametrize("path", ["", "a" * 108, "\u00e9" * 54, "\0name"])
def test_a_socket_that_cannot_be(path) -> None:
    """No path, more bytes than the kernel takes, or a name that lies in no directory."""
    with pytest.raises(ValidationError, match="is no socket"):
        settings(url=f"unix:{path}")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000", "http://127.8.8.8:1/", "http://[::1]:8000", "unix:a/socket", "unix:" + "a" * 107],
)
def test_loopback_and_sockets_are_taken(url) -> None:
    """By their numbers, or a path."""
    assert settings(url=url).url == url


@pytest.mark.parametrize(
    "words",
    [
        ["--nnodes", "2"], ["-n", "2"], ["--node_rank=1"], ["--master-addr", "10.0.0.1"], ["--headless"],
        ["--distributed-executor-backend", "ray"], ["--distributed_executor_backend=ray"],
        ["--distributed-executor-backend", "external_launcher"], ["--data-parallel-backend", "ray"],
        ["--kv-transfer-config", "{}"], ["-dp", "2"],
    ],
)  # fmt: skip
def test_an_engine_that_would_span_machines_is_refused_with_the_reason(words) -> None:
    """However it is spelled."""
    message = refused(COMMAND + f"arguments = {words}")
    assert "span machines" in message
    assert "more enclaves behind the gateway" in message


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--enable-log-requests"], "where others read it"),
        (["--middleware", "x"], "where others read it"),
        (["--speculative-config", "{}"], "guess tokens ahead"),
        (["-sc.method", "ngram"], "guess tokens ahead"),
        (["--host", "::"], "set by the enclave"),
        (["--structured-outputs-config.backend", "xgrammar"], "set by the enclave"),
        (["--config", "x.yaml"], "not on the list"),
        (["--reasoning-parser", "x"], "not on the list"),
        (["--nnod", "2"], "not on the list"),
        (["-tp2"], "not on the list"),
        (["--load-format", "dummy"], "not on the list"),
        (["2"], "begins with its name"),
        (["--"], "not on the list"),
        (["--compilation-config", '{"debug_dump_path": "/x"}'], "debug_dump_path is not on the list"),
        (["-cc.debug_dump_path", "/x"], "debug_dump_path is not on the list"),
        (["-cc.cache_dir=/x"], "cache_dir is not on the list"),
        (["-cc", "{"], "JSON object"),
        (["--seed.x", "1"], "no members"),
        (["--enforce-eager=1"], "takes no value"),
        (["--dtype"], "needs a value"),
        (["--dtype", "--enforce-eager"], "needs a value"),
        (["--dtype="], "needs a value"),
        (["--cudagraph-capture-sizes", "x"], "whole numbers"),
    ],
)
def test_other_arguments_are_refused_with_the_reason(words, reason) -> None:
    """The list of those that may be set is closed, and no abbreviation passes."""
    assert reason in refused(COMMAND + f"arguments = {words}")


@pytest.mark.parametrize(
    "words",
    [
        ["--enforce-eager", "/other"], ["-tp", "2", "/other"], ["-tp=2", "/other"], ["/other"],
        ["--cudagraph-capture-sizes", "1", "2", "/other"], ["-tp", "2", "-5"], ["-cc.mode", "3", "/other"],
    ],
)  # fmt: skip
def test_a_word_that_is_no_value_could_be_another_model(words) -> None:
    """Given so it would win over the model that the manifest names."""
    assert "is no argument's value" in refused(COMMAND + f"arguments = {words}")


@pytest.mark.parametrize(
    "words",
    [
        ["vllm", "/other"], ["vllm", "serve", "/other"], ["python", "launch.py"], ["python", "-c", "pass"],
        ["python", "-m", "vllm", "/other"], ["python", "-m", "/other"], ["python", "-m", "vllm", "serve", "/other"],
        ["vllm", "serve", "serve"], ["python", "-m"],
    ],
)  # fmt: skip
def test_a_command_is_a_program_or_a_module(words) -> None:
    """Whatever follows it is checked, among the arguments."""
    assert "does not belong here" in refused(BASE + f"command = {words}")


@pytest.mark.parametrize(
    "words", [["/opt/vllm"], ["vllm", "serve"], ["python", "-m", "vllm.x.y"], ["python", "-m", "vllm", "serve"]]
)
def test_commands_that_are_taken(words) -> None:
    """vLLM's own two ways, and any program."""
    assert settings(command=words).command == tuple(words)


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "PATH", "HOME", "HTTPS_PROXY", "VLLM_DP_MASTER_IP",
        "VLLM_DP_SIZE", "VLLM_LOOPBACK_IP", "VLLM_TORCH_PROFILER_DIR", "VLLM_CACHE_ROOT", "NCCL_DEBUG_FILE",
        "CUDA_ENABLE_COREDUMP_ON_EXCEPTION", "TORCH_LOGS", "VLLM_LOGGING_LEVEL", "VLLM_RPC_BASE_PATH",
        "VLLM_ALLOW_INSECURE_SERIALIZATION", "NCCL_NET_PLUGIN", "UCX_NET_DEVICES",
    ],
)  # fmt: skip
def test_variables_that_are_not_on_the_list(name) -> None:
    """Other code, other machines, files of what is asked: what nobody listed is refused."""
    assert f"{name} is not on the list" in refused(COMMAND + f'[environment]\n{name} = "x"')


def test_variables_that_are_taken_do_not_change_ours() -> None:
    """Threads, cards, how cards speak to each other; and what binds it to loopback stays."""
    chosen = {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "2", "NCCL_P2P_DISABLE": "1"}
    options, given = SERVERS["vllm"].options, started(environment=chosen).environment
    made = options.make_environment({"PATH": "/bin", "LD_PRELOAD": "x"}, given)
    assert chosen.items() <= made.items()
    assert {name: value for name, value in made.items() if name.endswith("_SOCKET_IFNAME")} == dict.fromkeys(
        ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME"), "lo"
    )
    assert "LD_PRELOAD" not in made


def test_what_fits_one_machine_is_taken() -> None:
    """Tensor and pipeline parallel, memory, numbers below zero, members of a configuration."""
    words = [
        "--tensor-parallel-size", "4", "-pp=2", "--distributed-executor-backend", "mp", "--seed", "-1",
        "--compilation-config.level", "3", "--gpu_memory_utilization", "0.9", "--enforce-eager",
        "--cudagraph-capture-sizes", "1", "2", "-cc", '{"mode": 3}', "-cc.custom_ops+=-rms_norm",
    ]  # fmt: skip
    assert settings(command=("vllm",), arguments=words).arguments == tuple(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE, "name one of them"),
        (COMMAND + 'url = "unix:x"', "name one of them"),
        (BASE + 'url = "unix:x"\nlog_file = "x"', "that `command` starts"),
        (COMMAND + 'api_key_file = "x"', "belongs to `url`"),
        (BASE + 'command = ["vllm", "--nnodes"]', "--nnodes does not belong here"),
        (BASE + 'command = ["vllm", "-n"]', "-n does not belong here"),
        (COMMAND + '[environment]\nVLLM_SERVER_DEV_MODE = "1"', "inside"),
        (COMMAND + '[environment]\nRAY_ADDRESS = "x"', "span machines"),
        (COMMAND + '[environment]\nVLLM_MODEL_REDIRECT_PATH = "x"', "other weights"),
        (COMMAND + '[environment]\nNCCL_SOCKET_IFNAME = "eth0"', "set by the enclave"),
        (COMMAND + '[environment]\nVLLM_API_KEY = "x"', "no secret"),
        (COMMAND + '[environment]\nHF_HUB_OFFLINE = "0"', "set by the enclave"),
        (COMMAND + '[environment]\n"a b" = "x"', "capitals"),
        (COMMAND.replace('"0.32.0"', '"0.32 canary"'), "version"),
        (COMMAND + 'server = "other"', "vllm"),
        (COMMAND + "max_requests = 0", "max_requests"),
        (COMMAND + "idle_timeout_s = 0.0", "idle_timeout_s"),
    ],
)
def test_what_does_not_go_together_is_named(text, words) -> None:
    """Field and remedy."""
    assert words in refused(text)


def test_paths_are_beside_the_file_and_weights_are_needed(tmp_path) -> None:
    """As of every other setting."""
    head = 'gateway_secret_file = "g"\nplatform = "simulated-sev-snp"\ndevice_socket = "d"\n'
    file = tmp_path / "enclave.toml"
    file.write_text(head + '[model]\nweights = "w"\n[engine]\n' + BASE + 'url = "unix:run/s"\napi_key_file = "k"\n')
    engine = load_settings(file).engine
    assert isinstance(engine, RemoteSettings)
    assert (engine.url, engine.api_key_file) == (f"unix:{tmp_path}/run/s", str(tmp_path / "k"))
    file.write_text(head + "[engine]\n" + COMMAND)
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert caught.value.field == "model.weights"
    file.write_text(head + '[engine]\nkind = "vllm"\n')
    with pytest.raises(ConfigError, match='"torch" or "openai"'):
        load_settings(file)


def test_a_socket_beside_a_file_that_lies_deep(tmp_path) -> None:
    """Its path is short as it is written and too long where it lies: said before anybody tries it."""
    folder = tmp_path / ("deep" * 20)
    folder.mkdir()
    head = 'gateway_secret_file = "g"\nplatform = "simulated-sev-snp"\ndevice_socket = "d"\n'
    file = folder / "enclave.toml"
    file.write_text(head + '[model]\nweights = "w"\n[engine]\n' + BASE + 'url = "unix:socket"\n')
    with pytest.raises(ConfigError, match="at most 107") as caught:
        load_settings(file)
    assert caught.value.field == "engine.url"


def test_the_example_names_every_setting() -> None:
    """deploy/examples/enclave-vllm.toml loads, and shows each at its default or commented."""
    path = ROOT / "deploy/examples/enclave-vllm.toml"
    engine = load_settings(path).engine
    assert isinstance(engine, RemoteSettings)
    assert "--tensor-parallel-size" in engine.arguments
    shown = path.read_text()
    assert [
        name for name in RemoteSettings.model_fields if f"{name} =" not in shown and f"[engine.{name}]" not in shown
    ] == []
    given = tomllib.loads(shown)["engine"]
    needed = {"kind", "version", "command", "arguments", "environment", "context_tokens", "log_file"}
    defaults = {name: field.default for name, field in RemoteSettings.model_fields.items()}
    assert {name: value for name, value in given.items() if name not in needed and value != defaults[name]} == {}


@pytest.mark.parametrize("server", ["sglang", "llama.cpp"])
def test_the_examples_of_other_servers_are_taken(server) -> None:
    """Each loads, names its own server, and sets nothing that this server does not have."""
    engine = load_settings(ROOT / f"deploy/examples/enclave-{server.replace('.', '-')}.toml").engine
    assert isinstance(engine, RemoteSettings)
    assert engine.server == server
    assert engine.arguments


def test_the_card_says_what_answers_and_that_it_is_not_replayable() -> None:
    """Engine, version, whether that was tested, the digest of what is started."""
    card = read_card(model(), "toy", started())
    assert (card.engine["kind"], card.engine["server"]) == ("openai", "vllm")
    assert (card.engine["mode"], card.engine["version"], card.engine["tested"]) == ("fast", "0.32.0", True)
    assert card.engine["command"] == digest_command(started())
    assert read_card(model(), "toy", settings(url="unix:x")).engine["command"] == ""
    assert read_card(model(), "toy", started(version="0.99.0")).engine["tested"] is False
    changed = (
        started(arguments=("-tp", "2")), started(environment={"OMP_NUM_THREADS": "1"}), settings(command=("other",))
    )  # fmt: skip
    assert len({digest_command(each) for each in (started(), *changed)}) == 4


def test_every_file_of_a_model_counts(tmp_path) -> None:
    """One more, one renamed, one changed: another digest; links are followed, an empty directory is refused."""
    directory = checkpoint.write(tmp_path / "model")
    digests = {digest_directory(directory)}
    (directory / "more").mkdir()
    (directory / "more" / "code.py").write_text("x")
    digests.add(digest_directory(directory))
    (directory / "more" / "code.py").write_text("y")
    digests.add(digest_directory(directory))
    (directory / "more" / "code.py").rename(directory / "code.py")
    digests.add(digest_directory(directory))
    assert len(digests) == 4
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in directory.iterdir():
        if file.is_file():
            (linked / file.name).symlink_to(file)
    assert digest_directory(linked) in digests
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no files"):
        digest_directory(tmp_path / "empty")
    (linked / "a\nb").write_text("x")
    with pytest.raises(ConfigError, match="name"):
        digest_directory(linked)
