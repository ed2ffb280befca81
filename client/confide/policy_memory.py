"""The highest serial of each policy that this user ever accepted: no older one is accepted again."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confide_endorsements.files import replace_file
from confide_protocol.errors import ConfigError

MAX_MEMORY_BYTES = 1 << 20


def default_path() -> Path:
    """Return `$XDG_STATE_HOME/confide/policies.json`, by default below `~/.local/state`."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        folder = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        raise ConfigError("policy memory", "home", "there is no home directory; set XDG_STATE_HOME") from None
    return folder / "confide" / "policies.json"


class PolicyMemory:
    """A file of serials by policy id, written atomically; with `path` None it lasts as long as this object.

    A file that cannot be read is an error, never an empty memory.
    Raises: ConfigError.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._serials: dict[str, int] = {}

    def floor(self, policy_id: str) -> int:
        """Return the least serial that may be accepted for this id; 0 where none was seen."""
        return self._load().get(policy_id, 0)

    def remember(self, policy_id: str, serial: int) -> None:
        if self.floor(policy_id) >= serial:
            return
        if self.path is None:
            self._serials[policy_id] = serial
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _locked(self.path.with_suffix(".lock")):
                serials = self._load()
                serials[policy_id] = max(serial, serials.get(policy_id, 0))
                text = json.dumps({"version": 1, "serials": serials}, indent=1, sort_keys=True)
                replace_file(self.path, text.encode())
        except OSError as fault:
            raise self._wrong(
                f"cannot be written ({fault.strerror}); make it writable or set XDG_STATE_HOME"
            ) from None

    def _load(self) -> dict[str, int]:
        if self.path is None:
            return dict(self._serials)
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_MEMORY_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as fault:
            raise self._wrong(
                f"cannot be read ({fault.strerror}); make it readable or set XDG_STATE_HOME"
            ) from None
        try:
            tree = json.loads(data) if len(data) <= MAX_MEMORY_BYTES else None
        except (ValueError, RecursionError):
            tree = None
        serials = tree.get("serials") if isinstance(tree, dict) and tree.get("version") == 1 else None
        if not isinstance(serials, dict) or not all(type(each) is int and each >= 0 for each in serials.values()):
            raise self._wrong("is not a policy memory; restore it, or remove it to trust the next policy anew")
        return serials

    def _wrong(self, remedy: str) -> ConfigError:
        return ConfigError(str(self.path), "policy memory", remedy)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
