"""`confide model quantize`: every scheme of one model, with what each costs and gives."""

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import click
from confide_protocol.errors import ConfigError

from confide_enclave.engine.checkpoint import open_source
from confide_enclave.engine.convert import Scheme, convert
from confide_enclave.engine.package import Model, open_package, write_package
from confide_enclave.engine.tokens import Tokens

if TYPE_CHECKING:
    from confide_enclave.engine.quantize import Figures

PATH = click.Path(path_type=Path)
SCHEMES: Final[tuple[Scheme, ...]] = tuple(scheme for scheme in get_args(Scheme) if scheme != "none")
_HEADINGS: Final = ("scheme", "mode", "MB", "perplexity", "top-1 as float32", "tok/s B=1", "tok/s B=8")


@click.command("quantize")
@click.argument("source", type=PATH)
@click.argument("folder", type=PATH)
@click.option(
    "--scheme", "schemes", type=click.Choice(SCHEMES), multiple=True, help="Again for more.  [default: all]"
)
@click.option("--text", "text_file", type=PATH, help="What to read for perplexity.  [default: chapters of Alice]")
@click.option(
    "--windows", type=click.IntRange(1, 4096), default=8, show_default=True, help="How much of it to read."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quantize_command(
    source: Path, folder: Path, schemes: tuple[Scheme, ...], text_file: Path | None, windows: int, as_json: bool
) -> None:
    """Quantise SOURCE by each scheme into FOLDER/<name>.<scheme>, and compare them with float32.

    The table: bytes of the weights; perplexity on a text that the model is told as it goes, in windows of 512
    tokens; at how many positions the likeliest token is float32's; tokens a second for 1 and for 8 sequences of 128
    tokens, schemes in turns, the best of five, without scheduler and sampling. w8a8 is measured in exact mode,
    everything else in fast mode. Needs memory for the whole model in float32.
    """
    try:
        from confide_enclave.engine.quantize import SAMPLE, WINDOW_TOKENS, compare
    except ImportError:
        raise ConfigError("quantize", "torch", "is missing; install it: pip install 'confide[enclave]'") from None
    gguf, digest = open_source(source)
    text = _read(text_file or SAMPLE)
    ids = Tokens(gguf).encode(text)[: windows * WINDOW_TOKENS]
    if len(ids) < WINDOW_TOKENS:
        raise ConfigError(
            str(text_file or SAMPLE), "text", f"has {len(ids)} tokens; name one of at least {WINDOW_TOKENS}"
        )
    made = {scheme: folder / f"{source.stem}.{scheme}" for scheme in schemes or SCHEMES}
    for directory in made.values():
        if directory.exists():
            raise ConfigError(str(directory), "directory", "exists; name a new folder, or remove it first")
    reference = Model(gguf, dict(convert(gguf, "none")), "none", digest, digest)
    models: dict[Scheme, Model] = {}
    for scheme, directory in made.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".quantize.") as name:
                room = Path(name, "package")
                room.mkdir()
                write_package(gguf, digest, scheme, room)
                room.replace(directory)
        except OSError as fault:
            free = shutil.disk_usage(folder if folder.is_dir() else folder.anchor or ".").free >> 20
            raise ConfigError(
                str(directory), "directory", f"cannot be written ({fault.strerror}; {free} MiB free)"
            ) from None
        models[scheme] = open_package(directory)
    figures = compare(models, reference, ids, rounds=5)
    click.echo(json.dumps([asdict(each) for each in figures], indent=2) if as_json else _table(figures))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "it is not UTF-8"
        raise ConfigError(str(path), "text", f"cannot be read ({reason})") from None


def _table(figures: "list[Figures]") -> str:
    lines: list[tuple[str, ...]] = [_HEADINGS]
    for each in figures:
        speeds = (f"{each.decode_per_s[count]:.1f}" for count in (1, 8))
        quality = (f"{each.perplexity:.2f}", f"{100 * each.agreement:.1f} %")
        lines.append((each.scheme, each.mode, f"{each.weight_bytes / 1e6:.1f}", *quality, *speeds))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
