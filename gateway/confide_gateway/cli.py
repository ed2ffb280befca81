"""The commands `confide gateway` and `confide keys`."""

import functools
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import click
from confide_protocol.errors import ConfigError

from confide_gateway.keys import KEY_BYTES, KEY_PREFIX, KeyFile, load_keys, with_key, without_key, write_keys

P = ParamSpec("P")


def _one_line(command: Callable[P, None]) -> Callable[P, None]:
    """Turn a faulty file into one line and exit status 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ConfigError as fault:
            click.echo(f"confide: {fault}", err=True)
            sys.exit(2)

    return run


@click.command()
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path),
    help="The gateway's settings (TOML); deploy/examples/gateway.toml explains each.",
)
@_one_line
def gateway(config: Path) -> None:
    """Relay sealed requests to attested enclaves.

    The gateway sees who calls, never what is asked or answered. It appraises each enclave by the policy that
    its settings name and routes to none that has not passed.

    Prints {"ready": true, "url": ...} once it listens; /readyz answers 200 as soon as one enclave has passed
    and is ready.
    SIGTERM lets what is under way end, within limits.stop_grace_s. Logs are JSON lines on standard error.
    """
    from confide_gateway.serve import serve

    serve(config)


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of a gateway.

    The file holds labels, SHA-256 digests and limits, never a key. A running gateway follows its changes
    within a second or two.
    """


_file = click.option(
    "--file", "path", required=True, type=click.Path(path_type=Path), help="The gateway's api_keys_file (TOML)."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a machine.")


@keys.command()
@_file
@click.option("--label", required=True, help="Name of the account: a-z 0-9 . _ -, seen in metrics and by enclaves.")
@click.option(
    "--max-concurrency",
    default=8,
    show_default=True,
    help="Requests that this key may have under way; as many more for evidence.",
)
@_json
@_one_line
def new(path: Path, label: str, max_concurrency: int, as_json: bool) -> None:
    """Make a key, print it once, and add its digest to the file (created if absent, mode 0600)."""
    known = load_keys(path, "file") if path.exists() else KeyFile()
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    write_keys(path, with_key(known, path, label, key, max_concurrency))
    if as_json:
        click.echo(json.dumps({"label": label, "key": key, "max_concurrency": max_concurrency}))
    else:
        click.echo(key)
        click.echo(f"Added '{label}' to {path}. The key above is shown this once.", err=True)


@keys.command(name="list")
@_file
@_json
@_one_line
def list_(path: Path, as_json: bool) -> None:
    """List the accounts of the file."""
    known = load_keys(path, "file").keys
    if as_json:
        click.echo(json.dumps([key.model_dump() for key in known]))
    else:
        for key in known:
            click.echo(f"{key.label}\tat most {key.max_concurrency} at once\tsha256 {key.sha256[:16]}")


@keys.command()
@_file
@click.option("--label", required=True, help="Name of the account.")
@_one_line
def revoke(path: Path, label: str) -> None:
    """Remove an account; what it has under way may end."""
    write_keys(path, without_key(load_keys(path, "file"), path, label))
    click.echo(f"Revoked '{label}'.", err=True)
