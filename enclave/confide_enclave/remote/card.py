"""What is known of a model that another process runs: its published files, hashed, and our reading of them."""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from confide_protocol.errors import ConfigError, LocalStateError

from confide_enclave.engine import ModelCard
from confide_enclave.engine.checkpoint_tokenizer import read_tokenizer
from confide_enclave.engine.directory import Directory
from confide_enclave.engine.gguf import F32, Gguf, TensorInfo, from_metadata, parse_gguf
from confide_enclave.engine.template import read_thinking, read_tools
from confide_enclave.remote.servers import SERVERS
from confide_enclave.remote.settings import RemoteSettings

MAX_FILES: Final = 4_096
HASH_THREADS: Final = 4


def read_vocabulary(path: Path) -> Gguf:
    """Return the tokenizer and chat template of a published directory or a GGUF file. Raises: ConfigError."""
    if path.is_file():
        return _map_gguf(path)
    directory = Directory(path)
    template = path / "chat_template.jinja"
    metadata = read_tokenizer(
        directory.json("tokenizer.json"),
        directory.json("tokenizer_config.json", needed=False),
        directory.json("generation_config.json", needed=False),
        config=directory.json("config.json"),
        template=directory.read(template.name).decode(errors="replace") if template.is_file() else None,
        file=str(path),
    )
    return from_metadata(str(path), metadata, {}, _none)


def read_card(path: Path, name: str, settings: RemoteSettings, vocabulary: Gguf | None = None) -> ModelCard:
    """Describe the model without starting anything; hashes every file of it. Raises: ConfigError."""
    vocabulary = vocabulary or read_vocabulary(path)
    return ModelCard(
        name=name,
        weights_digest=digest_weights(path, settings),
        tokenizer_digest=vocabulary.digest("tokenizer."),
        context_tokens=settings.context_tokens,
        engine={
            "kind": settings.kind,
            "mode": "fast",
            "server": settings.server,
            "version": settings.version,
            "tested": settings.version in SERVERS[settings.server].tested,
            "command": digest_command(settings),
            "context_tokens": settings.context_tokens,
        },
        thinks=read_thinking(vocabulary),
        takes_tools=read_tools(vocabulary),
    )


def _map_gguf(path: Path) -> Gguf:
    try:
        with path.open("rb") as file:
            data = mmap(file.fileno(), 0, access=ACCESS_READ)
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "it is empty"
        raise ConfigError(str(path), "model.weights", f"cannot be read ({reason})") from None
    return parse_gguf(data, str(path))


def digest_weights(path: Path, settings: RemoteSettings) -> bytes:
    """Hash every file that the server may read. Raises: ConfigError."""
    server = SERVERS[settings.server]
    if server.weights == "file":
        if not path.is_file():
            raise ConfigError(str(path), "model.weights", f"is no file; {server.name} reads one GGUF file")
        return bytes.fromhex(_digest(path))
    if not path.is_dir():
        raise ConfigError(str(path), "model.weights", f"is no directory; {server.name} reads a published directory")
    return digest_directory(path)


def digest_command(settings: RemoteSettings) -> str:
    """Return the SHA-256 of what is started, as JSON; empty where the enclave starts nothing."""
    if not settings.command:
        return ""
    tree = [settings.command, settings.arguments, settings.environment]
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_directory(path: Path) -> bytes:
    """Return the SHA-256 over a line "<hex>  <name>" for every file below, in order of names; links are followed.

    Raises: ConfigError. Does not check: that nobody writes to the files before the server reads them.
    """
    names = sorted(_files(path))
    if not names or len(names) > MAX_FILES:
        raise ConfigError(str(path), "model.weights", f"holds no files, or more than {MAX_FILES}")
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        digests = list(pool.map(lambda name: _digest(path / name), names))
    lines = "".join(f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True))
    return hashlib.sha256(lines.encode()).digest()


def _files(path: Path) -> Iterator[str]:
    for folder, _, files in os.walk(path):
        for file in files:
            name = os.path.relpath(os.path.join(folder, file), path)
            if not name.isprintable():
                raise ConfigError(str(path), "model.weights", "holds a file whose name cannot be written on a line")
            yield name


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as fault:
        raise ConfigError(str(path), "model.weights", f"cannot be read ({fault.strerror})") from None


def _none(info: TensorInfo) -> F32:
    raise LocalStateError(f"{info.name} is the server's to read")
