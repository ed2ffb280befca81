"""What models a folder holds: files, published directories and converted ones, with digests and sizes. No torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from confide_protocol.errors import ConfigError

from confide_enclave.engine.checkpoint import open_source
from confide_enclave.engine.directory import Directory
from confide_enclave.engine.encoder_card import read_encoder_card
from confide_enclave.engine.gguf import Gguf
from confide_enclave.engine.package import WEIGHTS, open_package
from confide_enclave.engine.store import read_places

Kind = Literal["gguf", "directory", "encoder", "converted"]
MAX_DEPTH: Final = 3
MAX_FOUND: Final = 1_000


@dataclass(frozen=True)
class Entry:
    """One model. `digest_hex` is what stands in a manifest for a converted one, otherwise that of the source.

    `fault` says why it cannot be used; then the rest is empty.
    """

    path: str
    kind: Kind
    architecture: str = ""
    parameters: int = 0
    bytes: int = 0
    digest_hex: str = ""
    scheme: str = ""
    source_hex: str = ""
    fault: str = ""


def find_models(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Entry]:
    """Describe each model in the folder, or the one that it is."""
    for number, (path, kind) in enumerate(_find(folder, depth)):
        if number == MAX_FOUND:
            return
        yield describe(path, kind)


def describe(path: Path, kind: Kind) -> Entry:
    """Read, hash and count one model."""
    try:
        if kind == "converted":
            model = open_package(path, load=False)
            return Entry(
                str(path),
                kind,
                model.metadata.get("general.architecture", str),
                _converted_parameters(path),
                _size(path),
                model.digest.hex(),
                model.scheme,
                model.source_digest.hex(),
            )
        if kind == "encoder":
            return _describe_encoder(path)
        source, digest = open_source(path)
        architecture = source.get("general.architecture", str)
        return Entry(str(path), kind, architecture, _parameters(source), _size(path), digest.hex())
    except ConfigError as fault:
        return Entry(str(path), kind, fault=str(fault))


def kind_of(path: Path) -> Kind | None:
    """Say what lies at the path, by the names of files alone; None for no model."""
    if path.is_file():
        return "gguf" if path.suffix == ".gguf" and path.name != "metadata.gguf" else None
    if (path / "package.json").is_file() and (path / "metadata.gguf").is_file():
        return "converted"
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        return None
    try:
        family = Directory(path).json("config.json").get("model_type")
    except ConfigError:
        family = None
    return "encoder" if family == "bert" else "directory"


def _find(path: Path, depth: int) -> Iterator[tuple[Path, Kind]]:
    if (kind := kind_of(path)) is not None:
        yield path, kind
    elif depth and path.is_dir():
        try:
            inside = sorted(each for each in path.iterdir() if not each.name.startswith("."))
        except OSError:
            return
        for each in inside:
            yield from _find(each, depth - 1)


def _describe_encoder(path: Path) -> Entry:
    directory = Directory(path)
    card = read_encoder_card(directory, path.name)
    _, tensors = directory.tensors("model.safetensors")
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    return Entry(str(path), "encoder", "bert", parameters, _size(path), card.weights_digest.hex())


def _parameters(source: Gguf) -> int:
    return sum(math.prod(tensor.shape) for tensor in source.tensors.values())


def _converted_parameters(path: Path) -> int:
    """Count weights as kept, not scales: with w4a16 two of a matrix lie in a byte; w8a8 has a head of its own."""
    counted = (place for place in read_places(path / WEIGHTS) if not place.name.endswith(".scales"))
    return sum(math.prod(place.shape) * (2 if place.dtype == "uint8" else 1) for place in counted)


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir()) if each.is_file())
