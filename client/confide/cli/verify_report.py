"""`confide verify report`: judge what other providers publish of their enclaves, offline."""

from pathlib import Path

import click
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.foreign.dstack_report import DstackReport, is_dstack, parse_reports
from confide_attestation.foreign.fields import MAX_REPORT_BYTES, read_json
from confide_attestation.foreign.judge_dstack import DSTACK_LIMITS, verify_dstack_report
from confide_attestation.foreign.judge_tinfoil import TINFOIL_LIMITS, snp_endorsements, verify_tinfoil
from confide_attestation.foreign.tinfoil import TinfoilDocument, is_tinfoil, parse_document
from confide_attestation.result import AttestationResult
from confide_attestation.tdx.collateral import MAX_COLLATERAL_BYTES
from confide_attestation.tdx.ids import TdxCheck

from confide.cli.verify import FILE, Run, finish, read_der, read_file, read_hex, run_options, stop
from confide.cli.verify_nvidia import read_nvidia
from confide.cli.verify_snp import stop_without_vek
from confide.cli.verify_tdx import stop_without_collateral


@click.command(short_help="Judge another provider's attestation report.")
@click.argument("file", type=FILE)
@click.option("--nonce", metavar="HEX", help="The nonce that was asked with.  [default: freshness is not judged]")
@click.option("--which", metavar="NAME", help="Which report, if FILE holds several.")
@click.option("--collateral", type=FILE, help="TDX: Intel's documents, dcap-qvl's QuoteCollateralV3 as JSON.")
@click.option("--vek", type=FILE, help="SEV-SNP: VCEK certificate, PEM or DER.  [default: the one in FILE]")
@click.option("--rim", "rims", type=FILE, multiple=True, help="NVIDIA's manifest of golden values; repeatable.")
@click.option("--ocsp", type=FILE, help="Folder of OCSP answers.  [default: revocation of devices is not judged]")
@click.option("--tls-key", metavar="HEX", help="SHA-256 of the public key (DER) that the connection showed.")
@click.option("--no-gpu", is_flag=True, help="Leave GPUs unjudged: a gateway has none.")
@run_options()
def report(
    file: Path,
    nonce: str | None,
    which: str | None,
    collateral: Path | None,
    vek: Path | None,
    rims: tuple[Path, ...],
    ocsp: Path | None,
    tls_key: str | None,
    no_gpu: bool,
    run: Run,
) -> None:
    """Judge FILE, the attestation report of a provider that does not run Confide. The form is read from it:

    \b
    dstack, Phala, NEAR   the answer of /v1/attestation/report (intel_quote, nvidia_payload, event_log, info …)
    Tinfoil               the answer of /.well-known/tinfoil-attestation, versions 2 and 3, or a bundle

    Quote, event log and GPUs are judged by the same checks as alone, then what the report binds to them: signing
    address, nonce, TLS and HPKE keys, the app. The verdict is "authentic, NOT appraised" at best, never a keyset;
    what it does not show is said. A part that is missing is a failure.
    """
    asked = None if nonce is None else read_hex("--nonce", nonce, 32)
    seen = None if tls_key is None else read_hex("--tls-key", tls_key, 32)
    documents = None if collateral is None else read_file(collateral, MAX_COLLATERAL_BYTES)
    nvidia = read_nvidia(rims, ocsp)
    data = read_file(file, MAX_REPORT_BYTES)
    result: AttestationResult
    try:
        found = _parse(data, which)
    except EvidenceMalformed as fault:
        stop(f"{file}: {fault.check}: {fault}")
    if isinstance(found, DstackReport):
        if documents is None:
            stop_without_collateral(file, found.quote)
        result = verify_dstack_report(
            found,
            documents,
            nvidia,
            now_unix_s=run.now_unix_s,
            nonce=asked,
            tls_fingerprint=seen,
            judge_gpus=not no_gpu,
        )
        finish(result, run, {TdxCheck.COLLATERAL_FORMAT: collateral}, what=file, notes=DSTACK_LIMITS)
    result = verify_tinfoil(
        found,
        nvidia,
        now_unix_s=run.now_unix_s,
        snp=_snp(file, found, vek),
        collateral_json=_collateral(file, found, documents),
        nonce=asked,
        tls_fingerprint=seen,
        judge_gpus=not no_gpu,
    )
    files = {TdxCheck.COLLATERAL_FORMAT: collateral or file, "vek_format": vek or file}
    finish(result, run, files, what=file, notes=TINFOIL_LIMITS)


def _parse(data: bytes, which: str | None) -> DstackReport | TinfoilDocument:
    """Read a report of a known form; of several the one that `which` names. Raises: EvidenceMalformed."""
    tree = read_json(data)
    if is_tinfoil(tree):
        return parse_document(tree)
    if not is_dstack(tree):
        raise EvidenceMalformed(
            "expected a provider's attestation report (dstack's with intel_quote, or Tinfoil's), found other JSON",
            "provider_report_format",
        )
    reports = parse_reports(tree)
    if which is None and len(reports) == 1:
        return next(iter(reports.values()))
    if which not in reports:
        raise EvidenceMalformed(
            f"it holds {len(reports)} reports; choose by --which: {', '.join(reports)}", "provider_report_format"
        )
    return reports[which]


def _snp(file: Path, document: TinfoilDocument, vek: Path | None) -> SnpEndorsements | None:
    if document.platform != "sev-snp":
        return None
    if vek is not None:
        return SnpEndorsements(vek=read_der(vek, "CERTIFICATE"))
    if document.vek is None:
        stop_without_vek(file, document.evidence)
    return snp_endorsements(document)


def _collateral(file: Path, document: TinfoilDocument, documents: bytes | None) -> bytes | None:
    if document.platform == "tdx" and documents is None and document.collateral_json is None:
        stop_without_collateral(file, document.evidence)
    return documents
