"""A model on disk, converted once: metadata, arrays, and the digests of both. Needs no torch.

A package is a directory of three files. `metadata.gguf` is the source's metadata, byte for byte, without tensors;
`weights.safetensors` holds the arrays of `convert`; `package.json` names scheme, source and the SHA-256 of each.
The SHA-256 of package.json stands for the whole. Files are read once, and what was hashed is what computes.
"""

import contextlib
import hashlib
import json
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confide_protocol.errors import ConfigError

from confide_enclave.engine.convert import Scheme, convert
from confide_enclave.engine.directory import map_file
from confide_enclave.engine.gguf import Gguf, parse_gguf
from confide_enclave.engine.store import Array, read_arrays, read_places, write_arrays

MAX_WEIGHTS_BYTES: Final = 64 << 30
FORMAT: Final = 2
_INDEX, _METADATA = "package.json", "metadata.gguf"
WEIGHTS: Final = "weights.safetensors"


@dataclass(frozen=True)
class Model:
    """What an engine computes with. `digest` covers every bit of it; `source_digest` is of the file it is from."""

    metadata: Gguf
    arrays: dict[str, Array]
    scheme: Scheme
    digest: bytes
    source_digest: bytes


def open_model(
    path: Path,
    scheme: Scheme,
    *,
    expected_sha256: str | None = None,
    convert_dir: Path | None = None,
    load: bool = True,
) -> Model:
    """Open a package, or a GGUF file whose package is kept beside it (or in `convert_dir`) and made if need be.

    `expected_sha256` is of the GGUF file. Where nothing can be written, a GGUF is converted at each start.
    Without `load` the model is only described: it is hashed, and has no arrays.
    Raises: ConfigError.
    """
    if path.is_dir():
        model = open_package(path, load=load)
        if model.scheme != scheme:
            raise ConfigError(
                str(path), "scheme", f"is {model.scheme}; set the engine's scheme so, or convert again"
            )
        _expect(path, model.source_digest, expected_sha256)
        return model
    if scheme == "none" and not load:
        data, source = map_file(path)
        _expect(path, source, expected_sha256)
        return Model(parse_gguf(data, str(path)), {}, scheme, source, source)
    if scheme == "none":
        gguf, source = read_weights(path, expected_sha256)
        return Model(gguf, dict(convert(gguf, scheme)), scheme, source, source)
    source = _file_digest(path)
    _expect(path, source, expected_sha256)
    package = (convert_dir or path.parent) / f"{path.stem}.{scheme}"
    with contextlib.suppress(ConfigError):
        model = open_package(package, load=load)
        if (model.source_digest, model.scheme) == (source, scheme):
            return model
    return _convert(read_weights(path, source.hex())[0], source, scheme, package, load=load)


def open_package(directory: Path, *, load: bool = True) -> Model:
    """Read a package and check what was read against its own digests. Raises: ConfigError.

    Without `load` it is hashed, and comes without its arrays.
    """
    text = _read(directory / _INDEX)
    try:
        index = json.loads(text)
        files, scheme, source = index["files"], index["scheme"], bytes.fromhex(index["source"])
        known = index["format"] == FORMAT and scheme in ("w8a8", "w8a16", "w4a16")
        wanted = {name: files[name] for name in (_METADATA, WEIGHTS)}
    except (ValueError, TypeError, KeyError, RecursionError):
        known = False
    if not known:
        raise ConfigError(str(directory), _INDEX, "is not of this version; convert the model again")

    def check(name: str, digest: bytes) -> None:
        if digest.hex() != wanted[name]:
            raise ConfigError(str(directory / name), "sha256", "is not the package's; convert the model again")

    data, weights = _read(directory / _METADATA), directory / WEIGHTS
    check(_METADATA, hashlib.sha256(data).digest())
    arrays: dict[str, Array] = {}
    if load:
        arrays, digest = read_arrays(weights)
    else:
        read_places(weights)
        digest = _file_digest(weights)
    check(WEIGHTS, digest)
    metadata = parse_gguf(data, str(directory / _METADATA))
    return Model(metadata, arrays, scheme, hashlib.sha256(text).digest(), source)


def write_package(gguf: Gguf, source: bytes, scheme: Scheme, directory: Path) -> None:
    """Convert into an empty directory. Raises: ConfigError, OSError."""
    raw = gguf.metadata_raw
    head = struct.pack("<4sIQQ", b"GGUF", 3, 0, len(raw))
    (directory / _METADATA).write_bytes(head + b"".join(raw.values()))
    write_arrays(directory / WEIGHTS, dict(convert(gguf, scheme)))
    files = {name: _file_digest(directory / name).hex() for name in (_METADATA, WEIGHTS)}
    index = {"files": files, "format": FORMAT, "scheme": scheme, "source": source.hex()}
    (directory / _INDEX).write_text(json.dumps(index, sort_keys=True, separators=(",", ":")))


def read_weights(path: Path, expected_sha256: str | None = None) -> tuple[Gguf, bytes]:
    """Read and parse a GGUF file once, so that what was hashed is what is used; return it with its SHA-256.

    Raises: ConfigError when it is unreadable, no GGUF, or not the expected file.
    """
    data = _read(path)
    digest = hashlib.sha256(data).digest()
    _expect(path, digest, expected_sha256)
    return parse_gguf(data, str(path)), digest


def _convert(gguf: Gguf, source: bytes, scheme: Scheme, package: Path, *, load: bool) -> Model:
    """Make the package beside its place and move it there whole, so that nobody ever sees a part of one."""
    try:
        package.parent.mkdir(parents=True, exist_ok=True)
        room = tempfile.TemporaryDirectory(dir=package.parent, prefix=f".{package.name}.")
    except OSError:
        room = tempfile.TemporaryDirectory()
    with room as name:
        made = Path(name, package.name)
        made.mkdir()
        try:
            write_package(gguf, source, scheme, made)
            if Path(name).parent == package.parent:
                shutil.rmtree(package, ignore_errors=True)
                made = made.replace(package)
        except OSError as fault:
            # Another process may have been first; its package is checked like any other.
            if not package.is_dir():
                raise ConfigError(str(package), "weights", f"cannot be written ({fault.strerror})") from None
            made = package
        return open_package(made, load=load)


def _expect(path: Path, source: bytes, expected_sha256: str | None) -> None:
    if expected_sha256 is not None and source.hex() != expected_sha256.lower():
        raise ConfigError(
            str(path), "sha256", f"is {source.hex()}, expected {expected_sha256}; fetch the file again"
        )


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise ConfigError(str(path), "weights", f"is larger than {MAX_WEIGHTS_BYTES} bytes")
        return path.read_bytes()
    except OSError as fault:
        raise ConfigError(str(path), "weights", f"cannot be read ({fault.strerror})") from None


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as fault:
        raise ConfigError(str(path), "weights", f"cannot be read ({fault.strerror})") from None
