"""API keys: the file, and who is let in by it."""

import stat
from pathlib import Path

import pytest
from confide_gateway.keys import KeyFile, key_digest, load_keys, with_key, without_key, write_keys
from confide_gateway.limits import Accounts
from confide_protocol.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

KEY = "confide-" + "k" * 43


def test_the_file_holds_no_key_and_is_for_its_owner(tmp_path: Path) -> None:
    """Written 0600, read back the same, and only the digest is in it."""
    path = tmp_path / "keys.toml"
    file = with_key(with_key(KeyFile(), path, "one", KEY, 3), path, "two", KEY + "2", 5)
    write_keys(path, file)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_keys(path) == file
    text = path.read_text()
    assert KEY not in text
    assert key_digest(KEY).hex() in text
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.toml"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A folder that cannot be written to names the remedy."""
    with pytest.raises(ConfigError, match="cannot be written"):
        write_keys(tmp_path / "absent" / "keys.toml", KeyFile())


@pytest.mark.parametrize("label", ["", "A", "a b", 'a"', "a\nb", "-a", "a" * 65, "ä"])
def test_a_label_cannot_break_out_of_anything(tmp_path: Path, label: str) -> None:
    """Labels go into TOML, metrics and a header field, so their alphabet is narrow."""
    with pytest.raises(ConfigError, match="label"):
        with_key(KeyFile(), tmp_path / "f", label, KEY, 1)


def test_labels_are_unique_and_known(tmp_path: Path) -> None:
    """A taken label, an unknown one and a doubled digest are faults."""
    path = tmp_path / "keys.toml"
    file = with_key(KeyFile(), path, "one", KEY, 1)
    with pytest.raises(ConfigError, match="taken"):
        with_key(file, path, "one", KEY, 1)
    with pytest.raises(ConfigError, match="not in the file"):
        without_key(file, path, "two")
    assert without_key(file, path, "one") == KeyFile()
    write_keys(path, with_key(file, path, "two", KEY, 1))
    with pytest.raises(ConfigError, match=r"keys\.sha256: appears twice"):
        load_keys(path)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[[keys]]\nlabel = 'a'",
        "[[keys]]\nlabel = 'a'\nsha256 = 'x'\nmax_concurrency = 1",
        f"[[keys]]\nlabel = 'a'\nsha256 = '{'a' * 64}'\nmax_concurrency = 0",
        f"[[keys]]\nlabel = 'a'\nsha256 = '{'a' * 64}'\nmax_concurrency = 1\nkey = 'secret'",
    ],
)
def test_a_broken_file_is_a_config_error(tmp_path: Path, text: str) -> None:
    """Unknown, missing and malformed entries stop the start."""
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_keys(path)


@given(st.binary(max_size=80))
def test_only_a_known_bearer_key_is_let_in(value: bytes) -> None:
    """Whatever stands in the field, nobody comes in but by the key itself."""
    accounts = Accounts(with_key(KeyFile(), Path("f"), "one", KEY, 1))
    assert accounts.authenticate(value) is None
    assert accounts.authenticate(b"Bearer " + value) is None
    known = accounts.authenticate(b"bearer " + KEY.encode())
    assert known is not None
    assert known.label == "one"


def test_counts_survive_a_reload(tmp_path: Path) -> None:
    """A reload changes limits and keys, not what is under way."""
    path = tmp_path / "f"
    accounts = Accounts(with_key(KeyFile(), path, "one", KEY, 1))
    account = accounts.authenticate(b"Bearer " + KEY.encode())
    assert account is not None
    assert account.acquire(evidence=False)
    assert not account.acquire(evidence=False)
    accounts.replace(with_key(KeyFile(), path, "one", "confide-new", 2))
    again = accounts.authenticate(b"Bearer confide-new")
    assert again is account
    assert account.acquire(evidence=False)
    assert not account.acquire(evidence=False)
    assert accounts.authenticate(b"Bearer " + KEY.encode()) is None
    account.release(evidence=False)
    assert account.acquire(evidence=False)
