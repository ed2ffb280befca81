"""`confide verify URL`: judge live evidence that answers a fresh nonce; `confide verify bundle`: judge it later."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import click
from confide_attestation.appraise import appraise
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import (
    MAX_BUNDLE_BYTES,
    CpuKind,
    Endorsements,
    EvidenceBundle,
    SnpEndorsements,
    TdxEndorsements,
    VtpmEvidence,
    parse_bundle,
)
from confide_attestation.result import AttestationResult
from confide_attestation.snp.judge import verify_snp
from confide_attestation.tdx.judge import verify_tdx
from confide_attestation.vtpm.azure import TdxPlatform, verify_azure

from confide.cli import options
from confide.cli.verify import FILE, Run, finish, read_file, read_hex, run_options, stop, verify
from confide.fetch import Limits, Link, fetch_evidence, gateway_url
from confide.policy_memory import PolicyMemory, default_path

NONCE_BYTES = 32


@verify.command(short_help="Judge live evidence: confide verify URL.")
@click.argument("url")
@options.api_key_file
@click.option("--save", type=FILE, help="Write the evidence here, as it was served.")
@run_options(at=False, policy=True)
def url(url: str, api_key_file: Path | None, save: Path | None, run: Run) -> None:
    """Fetch the evidence of the enclave behind the gateway at URL, with a fresh nonce, and judge it.

    Without --policy only the authenticity of the CPU's evidence is judged. The evidence saved with --save is judged
    again, offline, by `confide verify bundle FILE --nonce NONCE`; the nonce is printed.
    """
    key = options.read_api_key(api_key_file, os.environ.get("CONFIDE_API_KEY"))
    nonce = os.urandom(NONCE_BYTES)
    served = fetch_evidence(
        gateway_url(url), nonce, {"authorization": f"Bearer {key}"} if key else {}, Limits(), Link()
    )
    if save is not None:
        options.write_file(save, served, "--save")
    if not run.as_json:
        click.echo(f"nonce: {nonce.hex()}" + (f"; evidence written to {save}" if save else ""))
    _judge(url, served, nonce, run)


@verify.command(short_help="Judge evidence that was saved.")
@click.argument("file", type=FILE)
@click.option("--nonce", metavar="HEX", help="The nonce that it was fetched with (64 hex digits).")
@click.option(
    "--epoch",
    "epochs",
    multiple=True,
    metavar="HEX@UNIX",
    help="An epoch that you know: its value (64 hex digits) and when it was published. May stand several times.",
)
@run_options(policy=True)
def bundle(file: Path, nonce: str | None, epochs: tuple[str, ...], run: Run) -> None:
    """Judge the evidence in FILE, as `confide verify URL --save FILE` wrote it.

    Without --policy only the authenticity of the CPU's evidence is judged.
    """
    asked = read_hex("--nonce", nonce, NONCE_BYTES) if nonce else None
    _judge(file, read_file(file, MAX_BUNDLE_BYTES), asked, run, dict(map(_epoch, epochs)))


def _epoch(text: str) -> tuple[bytes, int]:
    value, _, published = text.partition("@")
    if not published.isascii() or not published.isdecimal():
        stop("--epoch: expected HEX@UNIX, the value and the second at which it was published")
    return read_hex("--epoch", value, NONCE_BYTES), int(published)


def _judge(
    what: Path | str, data: bytes, nonce: bytes | None, run: Run, epochs: Mapping[bytes, int] | None = None
) -> NoReturn:
    policy = run.policy
    try:
        evidence, endorsements = parse_bundle(data)
    except EvidenceMalformed as fault:
        stop(f"{what}: {fault}")
    if policy is None:
        result = _authenticate(evidence, endorsements, run.now_unix_s)
    else:
        result = appraise(
            evidence,
            endorsements,
            policy,
            now_unix_s=run.now_unix_s,
            floor=PolicyMemory(default_path()).floor(policy.id),
            nonce=nonce,
            epochs=epochs,
            allow_simulated=run.allow_simulated,
        )
    finish(result, run, {}, what=what, hint=options.clock_hint(result))


def _authenticate(evidence: EvidenceBundle, endorsements: Endorsements, now_unix_s: int) -> AttestationResult:
    """Judge the CPU's evidence by itself; one that is missing is as one that does not hold."""
    cpu = evidence.cpu
    snp = endorsements.snp or SnpEndorsements(vek=b"")
    tdx = endorsements.tdx or TdxEndorsements(collateral=b"")
    if cpu.kind is CpuKind.SEV_SNP:
        return verify_snp(cpu.report, snp, now_unix_s=now_unix_s)
    if cpu.kind is CpuKind.TDX:
        return verify_tdx(cpu.report, tdx.collateral, now_unix_s=now_unix_s)
    vtpm = cpu.vtpm or VtpmEvidence(b"", b"", b"")
    platform = snp if cpu.kind is CpuKind.AZURE_SEV_SNP else TdxPlatform(vtpm.td_quote, tdx.collateral)
    return verify_azure(cpu.report, vtpm, platform, now_unix_s=now_unix_s)
