"""gateway.toml and the files that it names: every fault is one line with file, field and remedy."""

from pathlib import Path

import pytest
from confide_gateway.judge import load_judge
from confide_gateway.serve import targets_of
from confide_gateway.settings import GatewaySettings, load_settings, read_secret
from confide_protocol.errors import ConfigError, PolicyError
from pydantic import ValidationError

from tests.fakes.gateway import SECRET, write_files

ROOT = Path(__file__).resolve().parents[3]
URL = "http://127.0.0.1:7080"


def fault_of(path: Path, old: str, new: str) -> ConfigError:
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("listen", "listne", "listen"),
        ('"127.0.0.1:0"', '"127.0.0.1"', "listen"),
        ('"127.0.0.1:0"', '"127.0.0.1:65536"', "listen"),
        ('"127.0.0.1:0"', "8080", "listen"),
        (URL, "ftp://x", "enclaves.0.url"),
        (URL, URL + "/path", "enclaves.0.url"),
        (URL, "http://user@host:1", "enclaves.0.url"),
        (URL, "http://host:99999", "enclaves.0.url"),
        (URL, "http://host:1\\r\\nx: y", "enclaves.0.url"),
        (
            "[[enclaves]]",
            '[[enclaves]]\nurl = "http://a"\nsecret_file = "x"\ntrusted = true\n[[enclaves]]',
            "trusted",
        ),
        ("allow_simulated = true", 'allow_simulated = "yes"', "allow_simulated"),
        ("allow_simulated = true", 'cors_origins = ["*"]', "cors_origins.0"),
        ("allow_simulated = true", 'cors_origins = ["null"]', "cors_origins.0"),
        ("allow_simulated = true", 'cors_origins = ["https://a.example/"]', "cors_origins.0"),
        ("allow_simulated = true", 'forwarder = "curl"', "forwarder"),
        ("[[enclaves]]", "[limits]\nfirst_byte_s = 0\n[[enclaves]]", "limits.first_byte_s"),
        ("[[enclaves]]", "[limits]\nfirst_byte_s = inf\n[[enclaves]]", "limits.first_byte_s"),
        ("[[enclaves]]", "[limits]\nrequest_body_bytes = 1\n[[enclaves]]", "limits.request_body_bytes"),
        ("[[enclaves]]", "[appraisal]\ninterval_s = 300\n[[enclaves]]", "appraisal.interval_s"),
        ("listen", "= listen", "not TOML"),
    ],
)
def test_a_faulty_setting_is_named(tmp_path: Path, old: str, new: str, field: str) -> None:
    """Unknown, missing, mistyped and out of range values name their field."""
    path = write_files(tmp_path, [URL])
    load_settings(path)
    assert field in str(fault_of(path, old, new))


def test_no_enclave_or_the_same_twice_is_a_fault(tmp_path: Path) -> None:
    """An empty directory serves nobody, and one node counts once."""
    for urls in ([], [URL, URL + "/"]):
        with pytest.raises(ConfigError, match="enclaves"):
            load_settings(write_files(tmp_path, urls))


def test_a_missing_file_names_its_field(tmp_path: Path) -> None:
    """Settings, secret and policy that are not there say so."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "none.toml")
    settings = load_settings(write_files(tmp_path, [URL]))
    (tmp_path / "secret").unlink()
    with pytest.raises(ConfigError, match="secret_file: cannot be read"):
        targets_of(settings, tmp_path)
    with pytest.raises(ConfigError, match="policy: cannot be read"):
        load_judge(tmp_path / "none", allow_simulated=True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """The remedy is the command to run."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(path)


@pytest.mark.parametrize(
    "text", ["", "short", "a" * 31, "a" * 257, "a" * 40 + "\r\nx: y", "a" * 40 + " b", "ä" * 40]
)
def test_a_secret_is_one_line_of_visible_characters(tmp_path: Path, text: str) -> None:
    """What could break out of a header field is refused, and the message holds none of it."""
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_secret(path)
    assert "aaaa" not in str(caught.value)


def test_a_secret_is_read_and_not_shown(tmp_path: Path) -> None:
    """A trailing newline is no part of it, and a target's repr hides it."""
    settings = load_settings(write_files(tmp_path, [URL]))
    (target,) = targets_of(settings, tmp_path)
    assert target.secret == SECRET
    assert SECRET not in repr(target)


def test_an_https_node_needs_a_ca_that_can_be_read(tmp_path: Path) -> None:
    """`ca_file` holds PEM certificates; without one the system's roots are taken."""
    path = write_files(tmp_path, ["https://node.example"])
    (target,) = targets_of(load_settings(path), tmp_path)
    assert (target.port, target.authority) == (443, "node.example")
    assert target.tls is not None
    (tmp_path / "ca.pem").write_text("no certificate")
    path.write_text(path.read_text() + 'ca_file = "ca.pem"\n')
    with pytest.raises(ConfigError, match="ca_file: holds no PEM certificate"):
        targets_of(load_settings(path), tmp_path)


def test_a_policy_that_can_accept_no_node_is_refused_at_the_start(tmp_path: Path) -> None:
    """Simulated hardware without the second switch, and a policy whose time has passed."""
    write_files(tmp_path, [URL])
    path = tmp_path / "policy.toml"
    with pytest.raises(PolicyError, match="allow_simulated"):
        load_judge(path, allow_simulated=False)
    lines = [
        "not_after = 2020-01-01T00:00:00Z" if x.startswith("not_after") else x for x in path.read_text().split("\n")
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(PolicyError, match="not_after: has passed, or this machine's clock is off"):
        load_judge(path, allow_simulated=True)


def test_settings_are_frozen(tmp_path: Path) -> None:
    """Nothing changes them after the start."""
    settings = load_settings(write_files(tmp_path, [URL]))
    with pytest.raises(ValidationError, match="frozen"):
        settings.allow_simulated = False  # type: ignore[misc]


def test_the_example_shows_every_setting_at_its_default() -> None:
    """deploy/examples/gateway.toml loads, and names each limit with the value that holds without it."""
    path = ROOT / "deploy" / "examples" / "gateway.toml"
    example = load_settings(path)
    text = path.read_text()
    for table in ("limits", "appraisal", "log"):
        shown, default = getattr(example, table), type(getattr(example, table))()
        assert shown == default
        for name in type(shown).model_fields:
            assert f"\n{name} = " in text, name
    assert set(GatewaySettings.model_fields) == example.model_fields_set
