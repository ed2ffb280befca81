"""`confide verify`: judge evidence offline, or live at a URL."""

import json
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click
from confide_attestation.appraise import verify_snp
from confide_attestation.checks.ids import SNP_FILES
from confide_attestation.ear import export_ear
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.pem import pem_blocks, pem_or_der
from confide_attestation.policy import load_policy
from confide_attestation.result import AttestationResult, Verdict
from confide_attestation.transcript_text import render_transcript
from confide_protocol.errors import PolicyError
from confide_protocol.settings import MAX_SETTINGS_BYTES

MAX_FILE_BYTES = 1 << 20
EXIT_STATUS: Mapping[Verdict, int] = {
    Verdict.ACCEPTED: 0,
    Verdict.AUTHENTIC: 0,
    Verdict.REFUSED: 1,
    Verdict.UNREADABLE: 2,
}


# Kinds of evidence whose command is loaded only when it is asked for.
KINDS = {
    "air": "confide.cli.verify_air:air",
    "nras": "confide.cli.verify_nvidia:nras",
    "nvidia": "confide.cli.verify_nvidia:nvidia",
    "tdx": "confide.cli.verify_tdx:tdx",
    "azure": "confide.cli.verify_azure:azure",
    "eventlog": "confide.cli.verify_eventlog:eventlog",
}


class VerifyGroup(click.Group):
    """A group in which a URL stands for the command `url`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *KINDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in KINDS:
            module, _, name = KINDS[cmd_name].partition(":")
            command: click.Command = getattr(import_module(module), name)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0].startswith(("http://", "https://")):
            args = ["url", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=VerifyGroup, short_help="Judge evidence: files, or live at a URL.")
def verify() -> None:
    """Judge attestation evidence and print every check with its reason.

    \b
    confide verify snp report.bin --vek vcek.der        a file, offline
    confide verify https://gateway.example --policy P   live, with a fresh nonce

    Exit status: 0 accepted (or, without a policy, authentic), 1 refused, 2 an input is not what it should be.
    """


FILE = click.Path(path_type=Path, dir_okay=False)
at_option = click.option(
    "--at", type=click.IntRange(0, 253_402_300_799), metavar="UNIX", help="Judge as of this time.  [default: now]"
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of the transcript."
)


@verify.command(short_help="Judge one AMD SEV-SNP report.")
@click.argument("report", type=FILE)
@click.option("--vek", required=True, type=FILE, help="VCEK or VLEK certificate, PEM or DER.")
@click.option(
    "--ask",
    type=FILE,
    help="ASK or ASVK certificate, PEM or DER, or AMD's cert_chain (it and the ARK, PEM).  [default: packaged]",
)
@click.option("--ark", type=FILE, help="ARK certificate, PEM or DER; must be a pinned one.  [default: packaged]")
@click.option("--crl", type=FILE, help="AMD's revocation list, PEM or DER.  [default: revocation is not judged]")
@at_option
@click.option("--policy", type=FILE, help="Appraisal policy (TOML).  [default: authenticity alone is judged]")
@click.option("--allow-simulated", is_flag=True, help="Let a policy of kind `simulated` accept simulated hardware.")
@click.option("--ear", type=click.Path(path_type=Path, dir_okay=False), help="Write the result as EAR (JSON) here.")
@json_option
def snp(
    report: Path,
    vek: Path,
    ask: Path | None,
    ark: Path | None,
    crl: Path | None,
    at: int | None,
    policy: Path | None,
    allow_simulated: bool,
    ear: Path | None,
    as_json: bool,
) -> None:
    """Judge the SEV-SNP attestation REPORT (1,184 bytes) of versions 2 to 5.

    Without --policy only authenticity is judged: signatures, chain, validity, TCB, debug and migration bits,
    revocation where --crl is given. The verdict is then "authentic, NOT appraised".
    """
    appraisal_policy = None
    if policy is not None:
        try:
            appraisal_policy = load_policy(read_file(policy, MAX_SETTINGS_BYTES), str(policy))
        except PolicyError as fault:
            stop(str(fault))
    issuers = () if ask is None else _read_issuers(ask)
    result = verify_snp(
        read_file(report),
        SnpEndorsements(
            vek=read_der(vek, "CERTIFICATE"),
            ask=issuers[0] if issuers else None,
            ark=read_der(ark, "CERTIFICATE") if ark is not None else issuers[1] if len(issuers) == 2 else None,
            crl=None if crl is None else read_der(crl, "X509 CRL"),
        ),
        now_unix_s=int(time.time()) if at is None else at,
        policy=appraisal_policy,
        allow_simulated=allow_simulated,
    )
    if ear is not None:
        try:
            ear.write_text(json.dumps(export_ear(result), indent=1) + "\n")
        except OSError as fault:
            stop(f"{ear}: cannot be written: {fault.strerror}")
    finish(result, dict(zip(SNP_FILES, (vek, ask, ark or ask, crl, report), strict=True)), as_json)


def finish(result: AttestationResult, files: Mapping[str, Path | None], as_json: bool, note: str = "") -> NoReturn:
    """Print a result and end with its status; `files` names, by check, the input that could not be read.

    `note` follows the transcript.
    """
    if result.verdict is Verdict.UNREADABLE:
        for check in result.failed:
            if check.id in files:
                click.echo(f"confide verify: {files[check.id]}: {check.id}: {check.detail}", err=True)
    if as_json:
        click.echo(json.dumps(as_tree(result)))
    elif result.verdict is not Verdict.UNREADABLE:
        click.echo(render_transcript(result) + (f"\n{note}" if note else ""))
    sys.exit(EXIT_STATUS[result.verdict])


def as_tree(result: AttestationResult) -> dict[str, object]:
    """Return a result as `--json` prints it."""
    return {
        "verdict": result.verdict.value,
        "appraised": result.policy_id is not None and result.verdict is not Verdict.UNREADABLE,
        "simulated": result.simulated,
        "checks": [{"id": c.id, "outcome": c.outcome.value, "detail": c.detail} for c in result.checks],
        "claims": {group: dict(claims) for group, claims in result.claims.items()},
    }


def read_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a file of at most `max_bytes`; one line and exit 2 if that cannot be."""
    try:
        if path.stat().st_size > max_bytes:
            stop(f"{path}: has {path.stat().st_size} bytes, more than {max_bytes}; is it the right file?")
        return path.read_bytes()
    except OSError as fault:
        stop(f"{path}: cannot be read: {fault.strerror}; check the path")


def stop(message: str) -> NoReturn:
    """End with one line and exit status 2."""
    click.echo(f"confide verify: {message}", err=True)
    sys.exit(2)


def read_der(path: Path, label: str) -> bytes:
    """Read a PEM or DER file as DER; one line and exit 2 if that cannot be."""
    try:
        return pem_or_der(read_file(path), label)
    except EvidenceMalformed as fault:
        stop(f"{path}: {fault}")


def _read_issuers(path: Path) -> tuple[bytes, ...]:
    """Read an ASK, or AMD's cert_chain: the ASK and then the ARK."""
    data = read_file(path)
    if b"-----BEGIN" not in data:
        return (data,)
    try:
        return pem_blocks(data, "CERTIFICATE", (1, 2))
    except EvidenceMalformed as fault:
        stop(f"{path}: {fault}")
