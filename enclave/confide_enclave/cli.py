"""`confide enclave`: serve one enclave, or say what it would be measured as."""

import asyncio
import json
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click
from confide_protocol.errors import ConfideError, ConfigError
from confide_protocol.keyset import ServedModel

from confide_enclave import logs
from confide_enclave.endorsements import Shelf
from confide_enclave.engine import Embedder, Engine
from confide_enclave.export import collect_evidence, write_files
from confide_enclave.hardening import forbid_core_dumps
from confide_enclave.made import Made
from confide_enclave.manifest import build_manifest
from confide_enclave.models import make_loaders, read_cards, share_cores
from confide_enclave.node import assemble, check_machine, open_machine
from confide_enclave.reload import Built, Loaded, Reloader, Source, keys_of, split
from confide_enclave.server import bind, serve
from confide_enclave.serving import Enclave
from confide_enclave.settings import EnclaveSettings, load_gateway_secret, load_settings

EXIT_CONFIG = 2
EXIT_HARDWARE = 3
EXIT_LOST = 4
EXIT_STOPPED = 128 + signal.SIGTERM
HARDWARE_FAULTS = ("device_unavailable", "gpu_rejected")

_EPILOG = """\b
Example enclave.toml:
  listen = "127.0.0.1:0"
  gateway_secret_file = "gateway.secret"    # mode 0600, the gateway's copy is the same
  platform = "simulated-sev-snp"
  device_socket = "device.sock"             # where `confide-sim` listens
  endorsements_file = "endorsements/endorsements.cbor"

\b
Start it:
  (umask 077; openssl rand -hex 32 > gateway.secret)
  confide-sim --socket device.sock --endorsements-dir endorsements &
  confide enclave --config enclave.toml

Every setting, with its default: deploy/examples/enclave.toml."""


@click.command(epilog=_EPILOG)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    required=True,
    help="The settings (TOML). Paths in it are relative to it.",
)
@click.option(
    "--manifest",
    "only_manifest",
    is_flag=True,
    help="Print the manifest and its digest, which a policy pins, as JSON; load and serve nothing.",
)
@click.option(
    "--collect",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write this machine's evidence there, for `confide endorsements fetch`; make no keys, serve nothing.",
)
def enclave(config_file: Path, only_manifest: bool, folder: Path | None) -> None:
    """Serve a model from inside a trusted execution environment.

    Makes its keys in memory, binds them to the hardware's evidence, opens sealed requests, answers them with the
    model and signs a receipt for each. Only the gateway that holds the secret of `gateway_secret_file` may call.

    Stays in the foreground. When calls are taken, one JSON line on stdout says so, with the URL; logs are JSON
    lines on stderr and never hold content. SIGTERM ends it after `shutdown_grace_s` at the latest. SIGHUP reads the
    settings again: what is wrong is refused and changes nothing; else answers end, models are exchanged, and calls
    are taken again with new keys.

    Exit status 2: a setting is wrong. 3: the hardware gives no evidence, or a GPU did not pass the enclave's own
    check, or computes wrongly; no keys were made. 4: a device failed while it served; start it again.
    """
    try:
        if only_manifest:
            _print_manifest(load_settings(config_file))
        elif folder is not None:
            _collect(str(config_file), load_settings(config_file), folder)
        else:
            _serve(config_file)
    except ConfideError as fault:
        if fault.code in HARDWARE_FAULTS:
            _fail(f"{fault.code}: {fault}", EXIT_HARDWARE)
        _fail(str(fault), EXIT_CONFIG)


def _print_manifest(settings: EnclaveSettings) -> None:
    manifest = build_manifest(settings, *read_cards(settings))
    tree = {
        "release": manifest.release,
        **_shown(manifest),
        "shapes": list(manifest.shapes),
        "platform": manifest.platform,
    }
    if manifest.more_models:
        tree["more_models"] = [_shown(model) for model in manifest.more_models]
    click.echo(json.dumps({"manifest_digest": manifest.digest.hex(), "manifest": tree}))


def _shown(model: ServedModel) -> dict[str, Any]:
    return {
        "model": model.model,
        "weights_digest": model.weights_digest.hex(),
        "tokenizer_digest": model.tokenizer_digest.hex(),
        "engine": dict(model.engine),
    }


def _collect(file: str, settings: EnclaveSettings, folder: Path) -> None:
    _check_device(file, settings)
    attester, _ = open_machine(settings)
    written = write_files(asyncio.run(collect_evidence(attester, random=secrets.token_bytes)), folder)
    click.echo(json.dumps({"written": [str(path) for path in written]}))


def _serve(file: Path) -> None:
    asked = threading.Event()  # to read the file again, before anything can do so
    signal.signal(signal.SIGHUP, lambda *_: asked.set())
    settings = load_settings(file)
    forbid_core_dumps()
    logs.configure(sys.stderr)
    secret = load_gateway_secret(Path(settings.gateway_secret_file))
    _check_device(str(file), settings)
    listener = bind(str(file), settings.host, settings.port)
    enclave, reloader, ready = _start(file, settings, secret)
    serve(enclave, listener, settings.limits, ready, reloader, asked)
    if enclave.lost:
        _fail("engine_lost: a device failed beyond repair by this process; start it again", EXIT_LOST)


def _start(file: Path, settings: EnclaveSettings, secret: bytes) -> tuple[Enclave, Reloader, dict[str, str]]:
    """Load everything and make the first keys. They live as long as the application: nothing here outlives it."""
    settings = share_cores(str(file), settings)
    shelf = Shelf(None if settings.endorsements_file is None else Path(settings.endorsements_file))
    loaders = make_loaders(str(file), settings)
    attester, gpus = open_machine(settings)
    check = partial(check_machine, attester=attester, gpus=gpus, shelf=shelf, random=secrets.token_bytes)
    asyncio.run(check(settings))
    # An external engine takes minutes to start, and must not outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))
    made = Made()
    loaded = [Loaded(key, load()) for key, load in zip(keys_of(settings), loaders, strict=True)]

    def build(settings: EnclaveSettings, engines: Sequence[Engine], embedder: Embedder | None) -> Built:
        return assemble(
            settings,
            engines,
            attester,
            secret,
            shelf=shelf,
            gpus=gpus,
            embedder=embedder,
            made=made,
            random=secrets.token_bytes,
        )

    app, holder, manifest = build(settings, *split(loaded, settings))
    enclave = Enclave(app, [each.part for each in loaded])
    reloader = Reloader(enclave, Source(file), settings, loaded, partial(check, again=True), build)
    return enclave, reloader, {"keyset": holder.current.digest.hex(), "manifest": manifest.digest.hex()}


def _check_device(file: str, settings: EnclaveSettings) -> None:
    path = settings.device_socket
    if path is None:
        return
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except OSError as fault:
        reason = fault.strerror or "the path is too long"
        start = f"confide-sim --socket {path} --endorsements-dir endorsements"
        raise ConfigError(file, "device_socket", f"{path} cannot be reached ({reason}); start: {start}") from None


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"confide enclave: {message}", err=True)
    sys.exit(status)
