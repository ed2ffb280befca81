"""`confide enclave`: serve one enclave, or say what it would be measured as."""

import asyncio
import json
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import click
from confide_protocol.errors import ConfideError, ConfigError

from confide_enclave import logs
from confide_enclave.endorsements import Shelf
from confide_enclave.engine import Embedder, Engine, ModelCard
from confide_enclave.engine.card import default_weights, read_card
from confide_enclave.engine.directory import Directory
from confide_enclave.engine.encoder_card import default_encoder, read_encoder_card
from confide_enclave.export import collect_evidence, write_files
from confide_enclave.hardening import forbid_core_dumps
from confide_enclave.manifest import build_manifest
from confide_enclave.node import assemble, check_machine, open_machine
from confide_enclave.remote.settings import RemoteSettings
from confide_enclave.server import bind, serve
from confide_enclave.settings import EmbeddingsSettings, EnclaveSettings, load_gateway_secret, load_settings

EXIT_CONFIG = 2
EXIT_HARDWARE = 3
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
  openssl rand -hex 32 > gateway.secret && chmod 600 gateway.secret
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
    lines on stderr and never hold content. SIGTERM ends it after `shutdown_grace_s` at the latest.

    Exit status 2: a setting is wrong. 3: the hardware gives no evidence, or a GPU did not pass the enclave's own
    check; no keys were made.
    """
    try:
        settings = load_settings(config_file)
        if only_manifest:
            _print_manifest(settings)
        elif folder is not None:
            _collect(str(config_file), settings, folder)
        else:
            _serve(str(config_file), settings)
    except ConfideError as fault:
        if fault.code in HARDWARE_FAULTS:
            _fail(f"{fault.code}: {fault}", EXIT_HARDWARE)
        _fail(str(fault), EXIT_CONFIG)


def _print_manifest(settings: EnclaveSettings) -> None:
    card = _card(settings)
    encoder = None
    if settings.embeddings is not None:
        encoder = read_encoder_card(Directory(_encoder(settings.embeddings)), settings.embeddings.name)
    manifest = build_manifest(settings, card, encoder)
    tree = {
        "release": manifest.release,
        "model": manifest.model,
        "weights_digest": manifest.weights_digest.hex(),
        "tokenizer_digest": manifest.tokenizer_digest.hex(),
        "engine": dict(manifest.engine),
        "shapes": list(manifest.shapes),
        "platform": manifest.platform,
    }
    click.echo(json.dumps({"manifest_digest": manifest.digest.hex(), "manifest": tree}))


def _collect(file: str, settings: EnclaveSettings, folder: Path) -> None:
    _check_device(file, settings)
    attester, _ = open_machine(settings)
    written = write_files(asyncio.run(collect_evidence(attester, random=secrets.token_bytes)), folder)
    click.echo(json.dumps({"written": [str(path) for path in written]}))


def _serve(file: str, settings: EnclaveSettings) -> None:
    forbid_core_dumps()
    logs.configure(sys.stderr)
    secret = load_gateway_secret(Path(settings.gateway_secret_file))
    _check_device(file, settings)
    shelf = Shelf(None if settings.endorsements_file is None else Path(settings.endorsements_file))
    listener = bind(file, settings.host, settings.port)
    load_engine, load_embedder = _loaders(file, settings)
    attester, gpus = open_machine(settings)
    asyncio.run(check_machine(settings, attester, gpus, shelf, random=secrets.token_bytes))
    engine, embedder = load_engine(), load_embedder()
    app, holder, manifest = assemble(
        settings, engine, attester, secret, shelf=shelf, gpus=gpus, embedder=embedder, random=secrets.token_bytes
    )
    serve(
        app,
        listener,
        settings.limits,
        {"keyset": holder.current.digest.hex(), "manifest": manifest.digest.hex()},
    )


def _loaders(file: str, settings: EnclaveSettings) -> tuple[Callable[[], Engine], Callable[[], Embedder | None]]:
    """Return what loads the engine, and the embedder if one is wanted. Raises: ConfigError."""
    weights, name, limits, wanted = _weights(settings), settings.model.name, settings.engine, settings.embeddings
    if isinstance(limits, RemoteSettings):
        from confide_enclave.remote.engine import RemoteEngine

        # It takes minutes to start, and must not outlive us.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))
        load_engine: Callable[[], Engine] = partial(RemoteEngine.load, weights, name, limits, file)
        if wanted is None:
            return load_engine, lambda: None
    try:
        from confide_enclave.engine.encoder import BertEmbedder
        from confide_enclave.engine.torch_engine import TorchEngine
    except ImportError:
        raise ConfigError(
            file, "model.kind", "torch is missing; install it: pip install 'confide[enclave]'"
        ) from None
    if not isinstance(limits, RemoteSettings):
        load_engine = partial(TorchEngine.load, weights, name, limits)
    return load_engine, lambda: None if wanted is None else BertEmbedder(_encoder(wanted), wanted.name, wanted)


def _card(settings: EnclaveSettings) -> ModelCard:
    if isinstance(settings.engine, RemoteSettings):
        from confide_enclave.remote.card import read_card as read_remote_card

        return read_remote_card(_weights(settings), settings.model.name, settings.engine)
    return read_card(_weights(settings), settings.model.name, settings.engine)


def _weights(settings: EnclaveSettings) -> Path:
    """Return where the model lies. Raises: ConfigError if it is not there."""
    if settings.model.weights is None:
        return default_weights()
    weights = Path(settings.model.weights)
    if not weights.exists():
        raise ConfigError(str(weights), "model.weights", "is not there; name a GGUF file or a converted directory")
    return weights


def _encoder(settings: EmbeddingsSettings) -> Path:
    """Return where the encoder lies. Raises: ConfigError if it is not there."""
    if settings.weights is None:
        return default_encoder()
    weights = Path(settings.weights)
    if not weights.is_dir():
        raise ConfigError(str(weights), "embeddings.weights", "is not there; name a published directory")
    return weights


def _check_device(file: str, settings: EnclaveSettings) -> None:
    path = settings.device_socket
    if path is None:
        return
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except OSError as fault:
        reason = fault.strerror or "the path is too long"
        raise ConfigError(
            file, "device_socket", f"{path} cannot be reached ({reason}); start: confide-sim --socket {path}"
        ) from None


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"confide enclave: {message}", err=True)
    sys.exit(status)
