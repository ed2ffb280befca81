"""`confide verify azure`: judge an Azure machine by its HCL report and its vTPM's quote, offline."""

from pathlib import Path
from typing import NoReturn

import click
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import SnpEndorsements, VtpmEvidence
from confide_attestation.snp.abi import parse_report
from confide_attestation.snp.ids import SNP_FILES
from confide_attestation.snp.kds import vek_urls
from confide_attestation.tdx.abi import MAX_PADDED_BYTES
from confide_attestation.tdx.collateral import MAX_COLLATERAL_BYTES
from confide_attestation.tdx.ids import TDX_FILES, TdxCheck
from confide_attestation.vtpm.azure import TdxPlatform, verify_azure
from confide_attestation.vtpm.hcl import Tee, parse_hcl
from confide_attestation.vtpm.ids import VtpmCheck

from confide.cli.verify import FILE, Run, finish, read_der, read_file, read_hex, run_options, stop
from confide.cli.verify_tdx import stop_without_collateral

METADATA = "http://169.254.169.254"
MAX_NONCE_BYTES = 64
MAX_VTPM_FILE_BYTES = 64 * 1024


@click.command(short_help="Judge an Azure machine's HCL report and vTPM quote.")
@click.argument("hcl", type=FILE)
@click.option("--tpm-quote", required=True, type=FILE, help="The TPM's quote (TPMS_ATTEST).")
@click.option(
    "--tpm-signature", required=True, type=FILE, help="Its signature by the AK: the RSA signature's bytes."
)
@click.option("--pcrs", required=True, type=FILE, help="The SHA-256 bank: a JSON list of 24 values in hexadecimal.")
@click.option("--nonce", metavar="HEX", help="What the quote has to answer.  [default: freshness is not judged]")
@click.option("--vek", type=FILE, help="SEV-SNP: VCEK certificate, PEM or DER.")
@click.option("--ask", type=FILE, help="SEV-SNP: ASK certificate, PEM or DER.  [default: packaged]")
@click.option("--ark", type=FILE, help="SEV-SNP: ARK certificate, PEM or DER.  [default: packaged]")
@click.option("--crl", type=FILE, help="SEV-SNP: AMD's revocation list, PEM or DER.  [default: not judged]")
@click.option("--td-quote", type=FILE, help="TDX: the quote that the TDREPORT was turned into.")
@click.option("--collateral", type=FILE, help="TDX: Intel's documents, dcap-qvl's QuoteCollateralV3 as JSON.")
@run_options(policy=True)
def azure(
    hcl: Path,
    tpm_quote: Path,
    tpm_signature: Path,
    pcrs: Path,
    nonce: str | None,
    vek: Path | None,
    ask: Path | None,
    ark: Path | None,
    crl: Path | None,
    td_quote: Path | None,
    collateral: Path | None,
    run: Run,
) -> None:
    """Judge the HCL report (NV index 0x01400001) of an Azure machine, and what its vTPM quotes.

    Give --vek for an SEV-SNP machine, --td-quote and --collateral for a TDX machine. Without --policy only
    authenticity is judged: the hardware's report, the runtime data, the AK in them, its quote, the PCRs. The
    verdict is then "authentic, NOT appraised": the values of PCRs, secure boot and console are shown, not judged.
    A policy needs --nonce: what it judges has to be fresh.
    """
    policy = run.policy
    files: dict[str, Path | None] = {
        VtpmCheck.HCL_SIZE: hcl,
        VtpmCheck.HCL_MAGIC: hcl,
        VtpmCheck.TPM_MAGIC: tpm_quote,
        VtpmCheck.TPM_SIG_FORMAT: tpm_signature,
        VtpmCheck.PCRS_FORMAT: pcrs,
        **dict(zip(SNP_FILES, (vek, ask, ark, crl, hcl), strict=True)),
        **dict.fromkeys(TDX_FILES, td_quote),
        TdxCheck.COLLATERAL_FORMAT: collateral,
    }
    result = verify_azure(
        read_file(hcl, MAX_VTPM_FILE_BYTES),
        VtpmEvidence(*(read_file(path, MAX_VTPM_FILE_BYTES) for path in (tpm_quote, tpm_signature, pcrs))),
        _platform(hcl, vek, ask, ark, crl, td_quote, collateral),
        now_unix_s=run.now_unix_s,
        nonce=None if nonce is None else _nonce(nonce),
        policy=policy,
        allow_simulated=run.allow_simulated,
    )
    finish(result, run, files, what=hcl)


def _platform(
    hcl: Path,
    vek: Path | None,
    ask: Path | None,
    ark: Path | None,
    crl: Path | None,
    td_quote: Path | None,
    collateral: Path | None,
) -> SnpEndorsements | TdxPlatform:
    if vek is not None and td_quote is None and collateral is None:
        ask_der, ark_der = (None if path is None else read_der(path, "CERTIFICATE") for path in (ask, ark))
        crl_der = None if crl is None else read_der(crl, "X509 CRL")
        return SnpEndorsements(read_der(vek, "CERTIFICATE"), ask_der, ark_der, crl_der)
    if td_quote is not None and collateral is not None and not (vek or ask or ark or crl):
        return TdxPlatform(read_file(td_quote, MAX_PADDED_BYTES), read_file(collateral, MAX_COLLATERAL_BYTES))
    if vek is None and td_quote is None and collateral is None:
        _stop_without_platform(hcl)
    if td_quote is not None and collateral is None and vek is None:
        stop_without_collateral(td_quote, read_file(td_quote, MAX_PADDED_BYTES))
    return stop("what vouches for the hardware is mixed; give --vek, --ask, --ark or --td-quote, --collateral")


def _stop_without_platform(path: Path) -> NoReturn:
    """Say what vouches for this machine and where it lies; one line and exit 2."""
    try:
        report = parse_hcl(read_file(path, MAX_VTPM_FILE_BYTES))
        if report.tee is Tee.TDX:
            stop(
                f"--td-quote and --collateral are missing; the machine has one made at {METADATA}/acc/tdquote; "
                "`confide verify tdx QUOTE` says where Intel has the collateral"
            )
        urls = " or ".join(vek_urls(parse_report(report.hardware)))
    except EvidenceMalformed as fault:
        stop(f"{path}: {fault.check}: {fault}")
    stop(
        f"--vek is missing; the machine has it at {METADATA}/metadata/THIM/amd/certification, AMD at {urls}: "
        "`confide endorsements fetch` brings it, on another machine too (`confide endorsements import` brings it "
        "here)"
    )


def _nonce(text: str) -> bytes:
    nonce = read_hex("--nonce", text)
    if len(nonce) > MAX_NONCE_BYTES:
        stop(f"--nonce: expected 1 to {MAX_NONCE_BYTES} bytes in hexadecimal")
    return nonce
