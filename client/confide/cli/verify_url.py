"""`confide verify URL`: judge live evidence that answers a fresh nonce; `confide verify bundle`: judge it later."""

import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import click
from confide_attestation.appraise import appraise
from confide_attestation.snp.judge import verify_snp
from confide_attestation.errors import AttestationError
from confide_attestation.evidence import MAX_BUNDLE_BYTES, SnpEndorsements, parse_bundle
from confide_attestation.result import AttestationResult
from confide_attestation.transcript_text import render_transcript
from confide_protocol.errors import PolicyError

from confide.cli import options
from confide.cli.verify import EXIT_STATUS, as_tree, read_file, stop, verify
from confide.policy_memory import PolicyMemory, default_path
from confide.relay import Limits, Link, fetch_evidence, gateway_url, read_policy

NONCE_BYTES = 32

_policy = click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Appraisal policy (TOML).  [default: authenticity alone is judged]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the transcript.")


@verify.command(short_help="Judge live evidence: confide verify URL.")
@click.argument("url")
@_policy
@options.allow_simulated
@options.api_key_file
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the evidence here, as it was served."
)
@_json
def url(
    url: str,
    policy_file: Path | None,
    allow_simulated: bool,
    api_key_file: Path | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Fetch the evidence of the enclave behind the gateway at URL, with a fresh nonce, and judge it.

    Without --policy only the report's authenticity is judged. The evidence saved with --save is judged again,
    offline, by `confide verify bundle FILE --nonce NONCE`; the nonce is printed.
    """
    key = options.read_api_key(api_key_file, os.environ.get("CONFIDE_API_KEY"))
    nonce = os.urandom(NONCE_BYTES)
    served = fetch_evidence(
        gateway_url(url), nonce, {"authorization": f"Bearer {key}"} if key else {}, Limits(), Link()
    )
    if save is not None:
        options.write_file(save, served, "--save")
    if not as_json:
        click.echo(f"nonce: {nonce.hex()}" + (f"; evidence written to {save}" if save else ""))
    _judge(served, nonce, policy_file, int(time.time()), allow_simulated, as_json)


@verify.command(short_help="Judge evidence that was saved.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_policy
@options.allow_simulated
@click.option("--nonce", metavar="HEX", help="The nonce that it was fetched with (64 hex digits).")
@click.option(
    "--at", type=click.IntRange(0, 253_402_300_799), metavar="UNIX", help="Judge as of then.  [default: now]"
)
@_json
def bundle(
    file: Path, policy_file: Path | None, allow_simulated: bool, nonce: str | None, at: int | None, as_json: bool
) -> None:
    """Judge the evidence in FILE, as `confide verify URL --save FILE` wrote it."""
    try:
        asked = bytes.fromhex(nonce) if nonce else None
    except ValueError:
        asked = b""
    if asked is not None and len(asked) != NONCE_BYTES:
        stop("--nonce: needs 64 hex digits, as `confide verify URL` printed them")
    now_unix_s = int(time.time()) if at is None else at
    _judge(read_file(file, MAX_BUNDLE_BYTES), asked, policy_file, now_unix_s, allow_simulated, as_json)


def _judge(
    data: bytes,
    nonce: bytes | None,
    policy_file: Path | None,
    now_unix_s: int,
    allow_simulated: bool,
    as_json: bool,
) -> NoReturn:
    try:
        evidence, endorsements = parse_bundle(data)
        result: AttestationResult
        if policy_file is None:
            snp = endorsements.snp or SnpEndorsements(vek=b"")
            result = verify_snp(evidence.cpu.report, snp, now_unix_s=now_unix_s)
        else:
            policy = read_policy(policy_file)
            result = appraise(
                evidence,
                endorsements,
                policy,
                now_unix_s=now_unix_s,
                floor=PolicyMemory(default_path()).floor(policy.id),
                nonce=nonce,
                allow_simulated=allow_simulated,
            )
    except (AttestationError, PolicyError) as fault:
        stop(str(fault))
    click.echo(json.dumps(as_tree(result)) if as_json else render_transcript(result))
    if hint := options.clock_hint(result):
        click.echo(f"confide verify: {hint}", err=True)
    sys.exit(EXIT_STATUS[result.verdict])
