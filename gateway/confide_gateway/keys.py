"""The file of API keys: labels, hashes and limits; a key itself is shown once and kept nowhere.

A key holds 256 random bits, so one SHA-256 without salt or stretching hides it.
"""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Annotated

from confide_protocol import settings
from confide_protocol.errors import ConfigError
from pydantic import Field

from confide_gateway.settings import read_file

KEY_PREFIX = "confide-"
KEY_BYTES = 32
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class ApiKey(settings.Settings):
    """One account. `sha256` is lower-case hex of the key's digest."""

    label: Label
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    max_concurrency: Annotated[int, Field(gt=0, le=4096)]


class KeyFile(settings.Settings):
    keys: Annotated[tuple[ApiKey, ...], Field(strict=False)] = ()


def key_digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def load_keys(path: Path, field: str = "api_keys_file") -> KeyFile:
    """Read the file of API keys. Raises: ConfigError."""
    read = settings.parse_toml(read_file(path, field), KeyFile, str(path))
    for name in ("label", "sha256"):
        values = [getattr(key, name) for key in read.keys]
        if len(set(values)) != len(values):
            raise ConfigError(str(path), f"keys.{name}", "appears twice; revoke one of the two")
    return read


def with_key(file: KeyFile, path: Path, label: str, key: str, max_concurrency: int) -> KeyFile:
    """Add an account. Raises: ConfigError where the label is taken or malformed."""
    if any(known.label == label for known in file.keys):
        raise ConfigError(str(path), "label", f"'{label}' is taken; choose another or revoke it first")
    try:
        new = ApiKey(label=label, sha256=key_digest(key).hex(), max_concurrency=max_concurrency)
    except ValueError:
        raise ConfigError(
            str(path), "label", "needs 1 to 64 of a-z 0-9 . _ - and --max-concurrency 1 to 4096"
        ) from None
    return KeyFile(keys=(*file.keys, new))


def without_key(file: KeyFile, path: Path, label: str) -> KeyFile:
    """Remove an account. Raises: ConfigError where there is none of that label."""
    rest = tuple(key for key in file.keys if key.label != label)
    if len(rest) == len(file.keys):
        raise ConfigError(str(path), "label", f"'{label}' is not in the file; see: confide keys list")
    return KeyFile(keys=rest)


def write_keys(path: Path, file: KeyFile) -> None:
    """Replace the file in one step, readable by its owner alone. Raises: ConfigError."""
    text = "".join(
        f'[[keys]]\nlabel = "{key.label}"\nsha256 = "{key.sha256}"\nmax_concurrency = {key.max_concurrency}\n\n'
        for key in file.keys
    )
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")  # created 0600
        try:
            with os.fdopen(handle, "w") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise ConfigError(str(path), "file", f"cannot be written ({why}); choose a folder that you own") from None
