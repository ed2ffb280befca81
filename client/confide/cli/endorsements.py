"""`confide endorsements`: fetch, keep and carry what vendors say of hardware."""

import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import (
    MAX_BUNDLE_BYTES,
    Endorsements,
    EvidenceBundle,
    encode_endorsements,
    parse_bundle,
    parse_endorsements,
)
from confide_attestation.nvidia.chain import MAX_CHAIN_BYTES
from confide_attestation.nvidia.evidence import MAX_EVIDENCE_BYTES, DeviceEvidence, parse_evidence
from confide_attestation.pem import pem_or_der
from confide_attestation.snp.abi import Product
from confide_attestation.snp.certificates import MAX_CERTIFICATE_BYTES
from confide_attestation.tdx.abi import MAX_PADDED_BYTES
from confide_attestation.vtpm.hcl import MAX_HCL_BYTES
from confide_endorsements import nvidia as nvidia_services
from confide_endorsements.archive import MAX_ARCHIVE_BYTES, archived, encode_archive, parse_archive
from confide_endorsements.cache import Cache, default_dir
from confide_endorsements.documents import TITLES, document_end, endings
from confide_endorsements.http import Http
from confide_endorsements.services import Services
from confide_endorsements.store import Store
from confide_protocol.errors import ConfigError

from confide.cli.options import write_file

DAY_S = 86_400
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
T = TypeVar("T")
_SERVICES = ", ".join(each.name for each in fields(Services))


@click.group(short_help="Fetch, keep and carry what vendors say of hardware.")
def endorsements() -> None:
    """Fetch certificates, lists and manifests from AMD, Intel and NVIDIA into a cache, and carry them elsewhere.

    \b
    confide endorsements fetch tdx quote.bin --to DIR    then: confide verify tdx quote.bin --collateral DIR/…
    confide endorsements export FILE                     on a machine with network
    confide endorsements import FILE                     on a machine without

    Nothing in the cache is trusted: `confide verify` judges all of it.
    """


cache_option = click.option(
    "--cache", "folder", type=FOLDER, help="The cache.  [default: $XDG_CACHE_HOME/confide/endorsements]"
)
offline_option = click.option("--offline", is_flag=True, help="Ask no network: what the cache has must do.")


def _source(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where documents come from and go to."""
    for option in (
        click.option("--to", type=FOLDER, help="Write the documents here too, as `confide verify` takes them."),
        click.option(
            "--service", "places", multiple=True, metavar="NAME=URL", help=f"Ask elsewhere; NAME: {_SERVICES}."
        ),
        click.option("--refresh", is_flag=True, help="Ask for everything again."),
        offline_option,
        cache_option,
    ):
        command = option(command)
    return command


@endorsements.group()
def fetch() -> None:
    """Fetch what it takes to judge a report, a quote or GPUs, unless the cache holds it."""


@fetch.command()
@click.argument("reports", type=FILE, nargs=-1, required=True, metavar="REPORT…")
@click.option(
    "--product",
    type=click.Choice([each.value for each in Product]),
    help="For reports of version 2, which do not say.",
)
@click.option("--vlek", type=FILE, help="The cloud's certificate (PEM or DER) for reports that a VLEK signed.")
@click.option("--azure", is_flag=True, help="Ask this Azure machine's own metadata service for its certificates.")
@_source
def snp(
    reports: tuple[Path, ...],
    product: str | None,
    vlek: Path | None,
    azure: bool,
    to: Path | None,
    **source: Any,  # noqa: ANN401
) -> None:
    """Fetch VCEK, AMD's chain and list for each SEV-SNP REPORT (or Azure's HCL report).

    AMD answers for one chip in 10 seconds; give many reports at once and they are spaced.
    """
    if to is not None and len(reports) > 1:
        raise ConfigError("--to", str(to), "takes one report")
    store, line = _store(**source), None if product is None else Product(product)
    for path in reports:
        data = _read(path, MAX_HCL_BYTES)
        ask = partial(store.snp, data, product=line, from_azure=azure)
        found = _run(path, ask) if vlek is None else _run(vlek, partial(store.vlek, _certificate(vlek)))
        _finish(path, Endorsements(snp=found), to)


@fetch.command()
@click.argument("quotes", type=FILE, nargs=-1, required=True, metavar="QUOTE…")
@_source
def tdx(quotes: tuple[Path, ...], to: Path | None, **source: Any) -> None:  # noqa: ANN401
    """Fetch Intel's documents for the platform of each TDX QUOTE."""
    if to is not None and len(quotes) > 1:
        raise ConfigError("--to", str(to), "takes one quote")
    store = _store(**source)
    for path in quotes:
        data = _read(path, MAX_PADDED_BYTES)
        found = _run(path, partial(store.tdx, data))
        _finish(path, Endorsements(tdx=found), to)


@fetch.command()
@click.argument("evidence", type=FILE)
@click.option("--chain", type=FILE, help="The device's certificates (PEM), unless EVIDENCE carries them.")
@_source
def nvidia(evidence: Path, chain: Path | None, to: Path | None, **source: Any) -> None:  # noqa: ANN401
    """Fetch manifests and OCSP answers for the GPUs and switches in EVIDENCE (a report, or NVIDIA's JSON)."""
    store, devices = _store(**source), _devices(evidence, chain)
    found = _run(evidence, partial(store.nvidia, devices))
    _finish(evidence, Endorsements(nvidia=found), to)


@fetch.command()
@click.argument("file", type=FILE, metavar="BUNDLE")
@_source
def bundle(file: Path, to: Path | None, **source: Any) -> None:  # noqa: ANN401
    """Fetch everything for the enclave whose evidence BUNDLE is, as its `/evidence` gives it."""
    store, evidence = _store(**source), _bundle(file)
    _finish(file, _run(file, partial(store.bundle, evidence)), to)


@fetch.command()
@click.argument("evidence", type=FILE)
@click.option("--chain", type=FILE, help="The device's certificates (PEM), unless EVIDENCE carries them.")
@click.option("--tokens", type=FILE, required=True, help="Where NVIDIA's tokens go.")
@click.option("--jwks", type=FILE, required=True, help="Where its keys go.")
@click.option("--service", "places", multiple=True, metavar="NAME=URL", help="Ask elsewhere; NAME: nras.")
def nras(evidence: Path, chain: Path | None, tokens: Path, jwks: Path, places: tuple[str, ...]) -> None:
    """Have NVIDIA's service (NRAS) judge EVIDENCE, for `confide verify nras`: it sees the evidence."""
    services, devices = _services(places), _devices(evidence, chain)
    http = Http(plain=services.plain)
    answer = _run(evidence, partial(nvidia_services.ask_nras, http, devices, services.nras))
    write_file(tokens, answer.tokens, "--tokens")
    write_file(jwks, answer.jwks, "--jwks")
    click.echo(f"wrote {tokens} and {jwks}; they count for an hour")


@endorsements.command()
@click.argument("file", type=FILE, required=False)
@cache_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def status(file: Path | None, folder: Path | None, as_json: bool) -> None:
    """List what the cache holds, or an enclave's FILE, and how long each document still counts."""
    if file is not None:
        _status_of(file, as_json)
        return
    cache, now = _cache(folder), int(time.time())
    found = [(document_end(name.kind, data), name, at) for name, data, at in archived(cache)]
    rows = sorted(found, key=lambda row: row[0])
    if as_json:
        tree = [
            {"kind": name.kind, "id": name.id, "url": name.url, "fetched_at": at, "expires_at": end}
            for end, name, at in rows
        ]
        click.echo(json.dumps({"cache": str(cache.folder), "documents": tree}))
        return
    click.echo(f"{cache.folder}: {len(rows)} documents")
    for end, name, _ in rows:
        click.echo(f"{_days(end, now):>10}  {TITLES[name.kind]}: {name.id}")


def _status_of(file: Path, as_json: bool) -> None:
    try:
        found = parse_endorsements(_read(file, MAX_BUNDLE_BYTES))
    except EvidenceMalformed as fault:
        raise ConfigError(str(file), "file", str(fault)) from None
    if not as_json:
        _finish(file, found, None)
        return
    tree = [{"title": each.title, "expires_at": each.not_after_unix_s} for each in endings(found)]
    click.echo(json.dumps({"file": str(file), "documents": tree}))


@endorsements.command()
@click.argument("file", type=FILE)
@click.option("--bundle", "bundle_file", type=FILE, help="Write an enclave's file: for the one of this evidence …")
@click.option("--snp", "snp_report", type=FILE, help="… or for the machine of this report …")
@click.option("--tdx", "tdx_quote", type=FILE, help="… or of this quote …")
@click.option("--nvidia", "evidence", type=FILE, help="… and for these GPUs and switches.")
@cache_option
def export(file: Path, folder: Path | None, **machine: Path | None) -> None:
    """Write the cache into FILE, for `import` on a machine without network.

    With --bundle, --snp, --tdx or --nvidia FILE is what an enclave takes instead (`endorsements_file`): the
    endorsements of that machine alone.
    """
    cache = _cache(folder)
    if any(machine.values()):
        found = _of_machine(Store(cache, None), **machine)
        write_file(file, encode_endorsements(found), "FILE")
        _finish(file, found, None)
        return
    documents = archived(cache)
    write_file(file, encode_archive(documents), "FILE")
    click.echo(f"wrote {file}: {len(documents)} documents")


def _of_machine(
    store: Store,
    bundle_file: Path | None,
    snp_report: Path | None,
    tdx_quote: Path | None,
    evidence: Path | None,
) -> Endorsements:
    found = Endorsements()
    if bundle_file is not None:
        found = _run(bundle_file, partial(store.bundle, _bundle(bundle_file)))
    if snp_report is not None:
        found = replace(found, snp=_run(snp_report, partial(store.snp, _read(snp_report, MAX_HCL_BYTES))))
    if tdx_quote is not None:
        found = replace(found, tdx=_run(tdx_quote, partial(store.tdx, _read(tdx_quote, MAX_PADDED_BYTES))))
    if evidence is not None:
        found = replace(found, nvidia=_run(evidence, partial(store.nvidia, _devices(evidence, None))))
    return found


@endorsements.command(name="import")
@click.argument("file", type=FILE)
@cache_option
def import_(file: Path, folder: Path | None) -> None:
    """Read a FILE that `export` wrote into the cache; what the cache has newer stays."""
    cache, now = _cache(folder), int(time.time())
    data = _read(file, MAX_ARCHIVE_BYTES)
    try:
        documents = parse_archive(data)
    except EvidenceMalformed as fault:
        raise ConfigError(str(file), "file", str(fault)) from None
    index = cache.entries()
    fresh = []
    for name, document, at in documents:
        kept = index.get(f"{name.kind.value} {name.id}")
        if kept is None or not min(at, now) <= kept.fetched_at <= now:
            fresh.append((name, document, at))
    cache.put_all(fresh, now_unix_s=now)
    click.echo(f"{cache.folder}: took {len(fresh)} of {len(documents)} documents")


def _cache(folder: Path | None) -> Cache:
    return Cache(folder or default_dir(), tell=_note)


def _store(folder: Path | None, offline: bool, refresh: bool, places: tuple[str, ...]) -> Store:
    services = _services(places)
    http = None if offline else Http(plain=services.plain)
    return Store(_cache(folder), http, services, refresh=refresh, tell=_note)


def _services(places: tuple[str, ...]) -> Services:
    names = {each.name for each in fields(Services)}
    chosen = {}
    for place in places:
        name, _, url = place.partition("=")
        if name not in names or not url.startswith(("https://", "http://")) or "@" in url:
            remedy = f"needs NAME=URL without credentials, with a NAME of {_SERVICES}"
            raise ConfigError("--service", name, remedy)
        chosen[name] = url.rstrip("/")
    return Services(**chosen)


def _run(path: Path, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run one request; a fault of the evidence names its file."""
    try:
        return anyio.run(ask)
    except EvidenceMalformed as fault:
        raise ConfigError(str(path), "evidence", str(fault)) from None


def _devices(evidence: Path, chain: Path | None) -> tuple[DeviceEvidence, ...]:
    data = _read(evidence, MAX_EVIDENCE_BYTES)
    certificates = None if chain is None else _read(chain, MAX_CHAIN_BYTES)
    try:
        return parse_evidence(data, certificates)
    except EvidenceMalformed as fault:
        raise ConfigError(str(evidence), "evidence", str(fault)) from None


def _certificate(path: Path) -> bytes:
    try:
        return pem_or_der(_read(path, MAX_CERTIFICATE_BYTES), "CERTIFICATE")
    except EvidenceMalformed as fault:
        raise ConfigError(str(path), "certificate", str(fault)) from None


def _bundle(file: Path) -> EvidenceBundle:
    try:
        return parse_bundle(_read(file, MAX_BUNDLE_BYTES))[0]
    except EvidenceMalformed as fault:
        raise ConfigError(str(file), "evidence", str(fault)) from None


def _finish(path: Path, found: Endorsements, to: Path | None) -> None:
    """Print when each document ends, and write all of them into a folder if one is named."""
    now = int(time.time())
    click.echo(f"{path}:")
    for each in endings(found):
        left = "cannot be read" if each.not_after_unix_s is None else _days(each.not_after_unix_s, now)
        click.echo(f"{left:>10}  {each.title}")
    if to is None:
        return
    if found.snp is not None:
        parts = {f"{name}.der": getattr(found.snp, name) for name in ("vek", "ask", "ark", "crl")}
        _write(to, {name: part for name, part in parts.items() if part is not None})
    if found.tdx is not None:
        _write(to, {"collateral.json": found.tdx.collateral})
    if found.nvidia is not None:
        _write(to, {f"rim{n}.xml": rim for n, rim in enumerate(found.nvidia.rims)})
        _write(to / "ocsp", {f"{n}.der": each.der for n, each in enumerate(found.nvidia.ocsp or ())})


def _days(end_unix_s: int, now_unix_s: int) -> str:
    left = end_unix_s - now_unix_s
    if left <= 0:
        return "ENDED"
    return f"{left // DAY_S} days" if left >= DAY_S else f"{left // 3600} hours"


def _write(folder: Path, files: dict[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ConfigError(
            str(folder), "--to", f"cannot be made ({fault.strerror}); choose another folder"
        ) from None
    for name, data in files.items():
        write_file(folder / name, data, "--to")


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as fault:
        raise ConfigError(str(path), "file", f"cannot be read ({fault.strerror}); check the path") from None
    if len(data) > max_bytes:
        raise ConfigError(str(path), "file", f"has more than {max_bytes} bytes; is it the right file?")
    return data


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)
