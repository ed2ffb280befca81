"""`confide verify nvidia` and `confide verify nras`: judge GPUs and switches, or what NVIDIA says of them."""

import re
from pathlib import Path

import click
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import split_pem
from confide_attestation.nvidia.chain import MAX_CHAIN_BYTES
from confide_attestation.nvidia.evidence import MAX_EVIDENCE_BYTES, NvidiaEndorsements, parse_evidence
from confide_attestation.nvidia.ids import NrasCheck
from confide_attestation.nvidia.jose import MAX_JWKS_BYTES
from confide_attestation.nvidia.nras import MAX_TOKENS_BYTES, verify_nras
from confide_attestation.nvidia.ocsp import MAX_ANSWER_BYTES, OcspAnswer, read_answer
from confide_attestation.nvidia.rim import looks_like_rim
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.nvidia.xmldsig import MAX_DOCUMENT_BYTES

from confide.cli.verify import FILE, Run, finish, read_file, run_options, stop

MAX_RIMS = 64
MAX_ANSWERS = 1024
_NONCE = re.compile(r"[0-9a-f]{64}")


def _nonce(_: click.Context, parameter: click.Parameter, value: str) -> bytes:
    if not _NONCE.fullmatch(value):
        stop(f"--{parameter.name}: needs 64 hex digits in lower case: the nonce that the evidence was asked with")
    return bytes.fromhex(value)


_nonce_option = click.option(
    "--nonce", required=True, metavar="HEX", callback=_nonce, help="The nonce that was asked with (64 hex digits)."
)


@click.command(short_help="Judge NVIDIA GPUs and switches.")
@click.argument("report", type=FILE)
@click.option("--chain", type=FILE, help="The device's certificates (PEM), unless REPORT carries them.")
@click.option("--rim", "rims", type=FILE, multiple=True, help="NVIDIA's manifest of golden values; repeatable.")
@click.option(
    "--ocsp",
    type=FILE,
    help="Folder of OCSP answers, DER or base64.  [default: revocation is not judged]",
)
@_nonce_option
@run_options(policy=True)
def nvidia(
    report: Path,
    chain: Path | None,
    rims: tuple[Path, ...],
    ocsp: Path | None,
    nonce: bytes,
    run: Run,
) -> None:
    """Judge the REPORT of NVIDIA GPUs (Hopper, Blackwell) or LS10 switches, offline.

    REPORT is an SPDM measurement report, raw or in hex, or NVIDIA's evidence JSON of one or several devices with
    their certificates. Manifests (RIM) of driver, VBIOS and switch BIOS are given in any order. Without --policy
    only authenticity and NVIDIA's golden values are judged. The verdict is then "authentic, NOT appraised".
    """
    policy = run.policy
    endorsements = read_nvidia(rims, ocsp)
    data = read_file(report, MAX_EVIDENCE_BYTES)
    try:
        devices = parse_evidence(data, None if chain is None else _read_chain(chain))
    except EvidenceMalformed as fault:
        stop(f"{report}: {fault}")
    result = verify_nvidia(
        devices,
        endorsements,
        now_unix_s=run.now_unix_s,
        nonce=nonce,
        policy=policy,
        allow_simulated=run.allow_simulated,
    )
    finish(result, run, {check.id: report for check in result.failed}, what=report)


@click.command(short_help="Judge tokens of NVIDIA's Remote Attestation Service.")
@click.argument("tokens", type=FILE)
@click.option("--jwks", required=True, type=FILE, help="NVIDIA's keys (JWK set), as fetched with the tokens.")
@_nonce_option
@run_options()
def nras(tokens: Path, jwks: Path, nonce: bytes, run: Run) -> None:
    """Judge TOKENS, the service's answer (a detached EAT of v3 or v4), by the keys in a JWK set.

    What this shows is that the holder of these keys says so; the devices' own evidence is not seen. The tokens are
    valid for an hour: give --at to judge recorded ones. The verdict is then "authentic, NOT appraised".
    """
    result = verify_nras(
        read_file(tokens, MAX_TOKENS_BYTES), read_file(jwks, MAX_JWKS_BYTES), now_unix_s=run.now_unix_s, nonce=nonce
    )
    finish(result, run, {NrasCheck.TOKENS_FORMAT: tokens, NrasCheck.JWKS_FORMAT: jwks}, what=tokens)


def read_nvidia(rims: tuple[Path, ...], ocsp: Path | None) -> NvidiaEndorsements:
    """Read manifests and a folder of OCSP answers; one line and exit 2 if that cannot be."""
    if len(rims) > MAX_RIMS:
        stop(f"--rim: {len(rims)} files, more than {MAX_RIMS}")
    manifests = tuple(_read_rim(each) for each in rims)
    return NvidiaEndorsements(manifests, None if ocsp is None else _read_answers(ocsp))


def _read_chain(path: Path) -> bytes:
    data = read_file(path, MAX_CHAIN_BYTES)
    try:
        split_pem(data)
    except EvidenceMalformed as fault:
        stop(f"{path}: {fault}")
    return data


def _read_rim(path: Path) -> bytes:
    data = read_file(path, MAX_DOCUMENT_BYTES)
    if not looks_like_rim(data):
        stop(f"{path}: expected one of NVIDIA's reference manifests (RIM, XML), found a file of another kind")
    return data


def _read_answers(folder: Path) -> tuple[OcspAnswer, ...]:
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as fault:
        stop(f"{folder}: cannot be read: {fault.strerror}; check the path")
    if not 1 <= len(paths) <= MAX_ANSWERS:
        stop(f"{folder}: expected 1 to {MAX_ANSWERS} OCSP answers, found {len(paths)} files")
    answers = []
    for path in paths:
        data = read_file(path, MAX_ANSWER_BYTES)
        try:
            answers.append(read_answer(data))
        except EvidenceMalformed as fault:
            stop(f"{path}: expected an OCSP answer, DER or base64: {fault}")
    return tuple(answers)
