"""The floor under a policy's serial survives the process and never falls."""

import stat
import threading
from pathlib import Path

import pytest
from confide.policy_memory import PolicyMemory, default_path
from confide_protocol.errors import ConfigError


def test_the_highest_serial_is_kept(tmp_path: Path) -> None:
    """A lower serial changes nothing, another id has its own floor, another object reads the same file."""
    memory = PolicyMemory(tmp_path / "new" / "policies.json")
    assert memory.floor("a") == 0
    for serial in (3, 7, 5):
        memory.remember("a", serial)
    memory.remember("b", 1)
    again = PolicyMemory(tmp_path / "new" / "policies.json")
    assert (again.floor("a"), again.floor("b"), again.floor("c")) == (7, 1, 0)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "policies.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version":2,"serials":{}}', '{"version":1,"serials":{"a":"1"}}', '{"version":1}']
)
def test_a_broken_memory_is_an_error_not_an_empty_one(tmp_path: Path, text: str) -> None:
    """A file that is not a memory is refused, with its name and the remedy, for reading and for writing."""
    path = tmp_path / "policies.json"
    path.write_text(text)
    for use in (lambda: PolicyMemory(path).floor("a"), lambda: PolicyMemory(path).remember("a", 1)):
        with pytest.raises(ConfigError, match=r"policies\.json.*remove it"):
            use()
    assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Where the memory cannot be kept, nothing is accepted in silence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="XDG_STATE_HOME"):
        PolicyMemory(tmp_path / "file" / "policies.json").remember("a", 1)


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    """Threads that write at once leave every id's serial behind."""
    path = tmp_path / "policies.json"
    threads = [threading.Thread(target=PolicyMemory(path).remember, args=(f"p{n}", n + 1)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [PolicyMemory(path).floor(f"p{n}") for n in range(12)] == list(range(1, 13))


def test_without_a_file_it_lasts_as_long_as_the_object() -> None:
    """PolicyMemory(None) writes nothing and still never falls."""
    memory = PolicyMemory(None)
    memory.remember("a", 2)
    memory.remember("a", 1)
    assert memory.floor("a") == 2


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_STATE_HOME counts where it is absolute, else the home directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "confide" / "policies.json"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".local" / "state" / "confide" / "policies.json"
