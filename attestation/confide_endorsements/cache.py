"""A cache of vendors' documents on disk: objects by SHA-256, one index by kind and id, bounded.

    DIR/objects/<SHA-256>   a document's bytes
    DIR/index.json          {"version": 1, "documents": {"<kind> <id>": {sha256, size, url, …}}}

Nothing in it is trusted: whatever lies there is judged like what a network brings.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from confide_attestation.errors import EvidenceMalformed
from confide_protocol.errors import ConfigError

from confide_endorsements.documents import MAX_DOCUMENT_BYTES, Kind, Name, document_end
from confide_endorsements.files import replace_file

MAX_DOCUMENTS = 2048
MAX_CACHE_BYTES = 32 << 20
MAX_INDEX_BYTES = 8 << 20
MAX_TEXT = 512
# 9999-12-31: what stands in the index can be written as a date.
MAX_UNIX_S = 253_402_300_799
_DIGEST_HEX = 64
# Objects, and what a write that was cut off left of one; everything that may lie in a cache.
_OBJECT = re.compile(rf"[0-9a-f]{{{_DIGEST_HEX}}}")
_OWN = re.compile(r"objects|lock|index\.json.*")


@dataclass(frozen=True)
class Entry:
    """What the index says of one document."""

    sha256: str
    size: int
    url: str
    fetched_at: int
    expires_at: int


@dataclass(frozen=True)
class Found:
    """A document from the cache; `expires_at` is read from the document itself, times are Unix seconds."""

    data: bytes
    fetched_at: int
    expires_at: int


def default_dir() -> Path:
    """Return `$XDG_CACHE_HOME/confide/endorsements`, by default below `~/.cache`. Raises: ConfigError."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        raise ConfigError("--cache", "home", "there is no home directory; set XDG_CACHE_HOME") from None
    return folder / "confide" / "endorsements"


class Cache:
    """One folder, for its owner alone. `tell` hears of what was damaged and is therefore taken as absent.

    Raises: ConfigError if the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tell: Callable[[str], None] = lambda _: None,
        max_documents: int = MAX_DOCUMENTS,
        max_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        self.folder, self._tell = folder, tell
        self._max_documents, self._max_bytes = max_documents, max_bytes

    def find(self, kind: Kind, document_id: str) -> Found | None:
        """Return a document, ended or not; None if there is none, or what is there was damaged."""
        entry = self.entries().get(_key(kind, document_id))
        return None if entry is None else self._read(kind, entry)

    def put(self, name: Name, data: bytes, *, now_unix_s: int) -> None:
        """Keep a document. Raises: EvidenceMalformed if it is none of its kind."""
        self.put_all([(name, data, now_unix_s)], now_unix_s=now_unix_s)

    def put_all(self, documents: Iterable[tuple[Name, bytes, int]], *, now_unix_s: int) -> None:
        """Keep documents with the times at which they were fetched, or none of them; no such time is to come.

        Raises: EvidenceMalformed.
        """
        fresh: dict[str, Entry] = {}
        contents: dict[str, bytes] = {}
        for name, data, fetched_at in documents:
            digest = hashlib.sha256(data).hexdigest()
            contents[digest] = data
            fresh[_key(name.kind, name.id)] = Entry(
                digest, len(data), name.url, min(fetched_at, now_unix_s), document_end(name.kind, data)
            )
        with self._locked():
            for digest, data in contents.items():
                path = self.folder / "objects" / digest
                if not path.exists() or self._object(digest) is None:
                    replace_file(path, data)
            self._write(self._bounded({**self.entries(), **fresh}, now_unix_s))

    def entries(self) -> dict[str, Entry]:
        """Return the index by `<kind> <id>`; empty if there is none, or it was damaged."""
        try:
            with (self.folder / "index.json").open("rb") as file:
                data = file.read(MAX_INDEX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as fault:
            raise self._unusable(fault) from None
        found = _parse_index(data)
        if found is None:
            self._tell(f"{self.folder / 'index.json'}: damaged; every document counts as absent")
        return found or {}

    def _read(self, kind: Kind, entry: Entry) -> Found | None:
        data = self._object(entry.sha256)
        if data is None:
            self._tell(f"{self.folder / 'objects' / entry.sha256}: damaged or gone; the document counts as absent")
            return None
        try:
            return Found(data, entry.fetched_at, document_end(kind, data))
        except EvidenceMalformed as fault:
            self._tell(f"{self.folder / 'objects' / entry.sha256}: {fault}; the document counts as absent")
            return None

    def _object(self, digest: str) -> bytes | None:
        try:
            with (self.folder / "objects" / digest).open("rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise self._unusable(fault) from None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def _bounded(self, entries: Mapping[str, Entry], now_unix_s: int) -> dict[str, Entry]:
        """Leave out what ended first and then what is oldest, until all fits."""
        newest = sorted(entries, key=lambda key: (entries[key].expires_at > now_unix_s, entries[key].fetched_at))
        kept: dict[str, Entry] = {}
        sizes: dict[str, int] = {}
        for key in reversed(newest):
            entry = entries[key]
            sizes[entry.sha256] = entry.size
            if len(kept) == self._max_documents or sum(sizes.values()) > self._max_bytes:
                break
            kept[key] = entry
        return kept

    def _write(self, entries: Mapping[str, Entry]) -> None:
        tree = {"version": 1, "documents": {key: asdict(entry) for key, entry in entries.items()}}
        replace_file(self.folder / "index.json", json.dumps(tree, indent=1, sort_keys=True).encode())
        used = {entry.sha256 for entry in entries.values()}
        for path in (self.folder / "objects").iterdir():
            if path.name not in used and _OBJECT.match(path.name):
                path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._demand_own_folder()
            (self.folder / "objects").mkdir(exist_ok=True, mode=0o700)
            with os.fdopen(os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600), "r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as fault:
            raise self._unusable(fault) from None

    def _demand_own_folder(self) -> None:
        """Refuse a folder of somebody's files, given by mistake: what is not in the index is removed here."""
        names = {path.name for path in self.folder.iterdir()}
        if "index.json" not in names and {name for name in names if not _OWN.fullmatch(name)}:
            remedy = "holds other files; choose an empty or a new folder"
            raise ConfigError(str(self.folder), "--cache", remedy)

    def _unusable(self, fault: OSError) -> ConfigError:
        remedy = f"cannot be used ({fault.strerror}); make it yours, or choose another folder"
        return ConfigError(str(self.folder), "--cache", remedy)


def _key(kind: Kind, document_id: str) -> str:
    return f"{kind.value} {document_id}"


def split_key(key: str) -> tuple[Kind, str]:
    """Return the kind and id of an index key. Raises: ValueError if the kind is unknown."""
    kind, _, document_id = key.partition(" ")
    return Kind(kind), document_id


def is_text(value: object) -> bool:
    """Say whether a value may stand in the index as a name or URL."""
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isascii() and value.isprintable()


def _parse_index(data: bytes) -> dict[str, Entry] | None:
    try:
        tree = json.loads(data) if len(data) <= MAX_INDEX_BYTES else None
    except (ValueError, RecursionError):
        return None
    documents = tree.get("documents") if isinstance(tree, dict) and tree.get("version") == 1 else None
    if not isinstance(documents, dict):
        return None
    found = {}
    for key, value in documents.items():
        entry = _parse_entry(key, value)
        if entry is None:
            return None
        found[key] = entry
    return found


def _parse_entry(key: str, value: Any) -> Entry | None:  # noqa: ANN401 - parsed JSON
    names = ("sha256", "size", "url", "fetched_at", "expires_at")
    if not isinstance(value, dict) or set(value) != set(names):
        return None
    texts = (key, value["sha256"], value["url"])
    numbers = (value["size"], value["fetched_at"], value["expires_at"])
    if not all(map(is_text, texts)):
        return None
    if not all(type(each) is int and 0 <= each <= MAX_UNIX_S for each in numbers):
        return None
    digest = value["sha256"]
    if not _OBJECT.fullmatch(digest):
        return None
    try:
        split_key(key)
    except ValueError:
        return None
    return Entry(**value)
