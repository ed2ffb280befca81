"""The files of a model as it is published: small ones read, large ones mapped, every one hashed. Needs no torch."""

import hashlib
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final

from confide_protocol.errors import ConfigError

from confide_enclave.engine.gguf import TensorInfo
from confide_enclave.engine.safetensors_file import parse_json_object, parse_safetensors

MAX_JSON_BYTES: Final = 64 << 20


class Directory:
    """The files of one published directory; remembers the digest of each that was read.

    With `load` every file is read once, into memory, so that what was hashed is what is used.
    """

    def __init__(self, path: Path, *, load: bool = False) -> None:
        self.path = path
        self._digests: dict[str, bytes] = {}
        self._loaded: dict[str, bytes] | None = {} if load else None

    def digest(self) -> bytes:
        """Return the SHA-256 over the lines of all files read so far."""
        lines = "".join(f"{digest.hex()}  {name}\n" for name, digest in sorted(self._digests.items()))
        return hashlib.sha256(lines.encode()).digest()

    def json(self, name: str, *, needed: bool = True) -> dict[str, Any]:
        """Return a JSON object; an empty one for an absent file that is not needed. Raises: ConfigError."""
        if not needed and not (self.path / name).is_file():
            return {}
        return parse_json_object(self.read(name), str(self.path / name), "file")

    def tensors(self, name: str) -> tuple[bytes | mmap, dict[str, TensorInfo]]:
        """Map a safetensors file, or load it. Raises: ConfigError."""
        data: bytes | mmap
        if self._loaded is not None:
            data = self._read(name, None)
        else:
            data, self._digests[name] = map_file(self.path / name)
        return data, parse_safetensors(data, str(self.path / name))

    def read(self, name: str) -> bytes:
        """Return a small file. Raises: ConfigError."""
        return self._read(name, MAX_JSON_BYTES)

    def _read(self, name: str, limit: int | None) -> bytes:
        if self._loaded is not None and name in self._loaded:
            return self._loaded[name]
        path = self.path / name
        try:
            with path.open("rb") as file:
                data = file.read(-1 if limit is None else limit + 1)
        except OSError as fault:
            raise ConfigError(str(path), "file", f"cannot be read ({fault.strerror})") from None
        if limit is not None and len(data) > limit:
            raise ConfigError(str(path), "file", f"is larger than {limit} bytes")
        self._digests[name] = hashlib.sha256(data).digest()
        if self._loaded is not None:
            self._loaded[name] = data
        return data


def map_file(path: Path) -> tuple[mmap, bytes]:
    """Return the file mapped, and its SHA-256. Raises: ConfigError."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            return mmap(file.fileno(), 0, access=ACCESS_READ), digest
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "it is empty"
        raise ConfigError(str(path), "weights", f"cannot be read ({reason})") from None
