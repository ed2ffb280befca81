"""`confide verify azure`: judge an Azure machine by its HCL report and its vTPM's quote, offline."""

import time
from pathlib import Path

import click
from confide_attestation.checks.ids import SNP_FILES
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.tdx.abi import MAX_PADDED_BYTES
from confide_attestation.tdx.collateral import MAX_COLLATERAL_BYTES
from confide_attestation.tdx.ids import TDX_FILES, TdxCheck
from confide_attestation.vtpm.azure import TdxPlatform, verify_azure
from confide_attestation.vtpm.ids import VtpmCheck
from confide_attestation.vtpm.verify import VtpmEvidence

from confide.cli.verify import FILE, at_option, finish, json_option, read_der, read_file, stop

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
@click.option("--td-quote", type=FILE, help="TDX: the quote that the TDREPORT was turned into.")
@click.option("--collateral", type=FILE, help="TDX: Intel's documents, dcap-qvl's QuoteCollateralV3 as JSON.")
@at_option
@json_option
def azure(
    hcl: Path,
    tpm_quote: Path,
    tpm_signature: Path,
    pcrs: Path,
    nonce: str | None,
    vek: Path | None,
    ask: Path | None,
    ark: Path | None,
    td_quote: Path | None,
    collateral: Path | None,
    at: int | None,
    as_json: bool,
) -> None:
    """Judge the HCL report (NV index 0x01400001) of an Azure machine, and what its vTPM quotes.

    Give --vek for an SEV-SNP machine, --td-quote and --collateral for a TDX machine. Only authenticity is judged:
    the hardware's report, the runtime data, the AK in them, its quote, the PCRs. The verdict is then "authentic,
    NOT appraised": the values of PCRs, secure boot and console are shown (--json), not judged.
    """
    files: dict[str, Path | None] = {
        VtpmCheck.HCL_SIZE: hcl,
        VtpmCheck.HCL_MAGIC: hcl,
        VtpmCheck.TPM_MAGIC: tpm_quote,
        VtpmCheck.TPM_SIG_FORMAT: tpm_signature,
        VtpmCheck.PCRS_FORMAT: pcrs,
        **dict(zip(SNP_FILES, (vek, ask, ark, None, hcl), strict=True)),
        **dict.fromkeys(TDX_FILES, td_quote),
        TdxCheck.COLLATERAL_FORMAT: collateral,
    }
    result = verify_azure(
        read_file(hcl, MAX_VTPM_FILE_BYTES),
        VtpmEvidence(*(read_file(path, MAX_VTPM_FILE_BYTES) for path in (tpm_quote, tpm_signature, pcrs))),
        _platform(vek, ask, ark, td_quote, collateral),
        now_unix_s=int(time.time()) if at is None else at,
        nonce=None if nonce is None else _nonce(nonce),
    )
    finish(result, files, as_json)


def _platform(
    vek: Path | None, ask: Path | None, ark: Path | None, td_quote: Path | None, collateral: Path | None
) -> SnpEndorsements | TdxPlatform:
    if vek is not None and td_quote is None and collateral is None:
        ask_der, ark_der = (None if path is None else read_der(path, "CERTIFICATE") for path in (ask, ark))
        return SnpEndorsements(vek=read_der(vek, "CERTIFICATE"), ask=ask_der, ark=ark_der)
    if td_quote is not None and collateral is not None and vek is None and ask is None and ark is None:
        return TdxPlatform(read_file(td_quote, MAX_PADDED_BYTES), read_file(collateral, MAX_COLLATERAL_BYTES))
    thim = "http://169.254.169.254/metadata/THIM/amd/certification"
    return stop(
        f"what vouches for the hardware is missing or mixed; give --vek (the machine has it at {thim}) "
        "for SEV-SNP, or --td-quote and --collateral for TDX"
    )


def _nonce(text: str) -> bytes:
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        nonce = b""
    if not nonce or len(nonce) > MAX_NONCE_BYTES:
        stop(f"--nonce: expected 1 to {MAX_NONCE_BYTES} bytes in hexadecimal")
    return nonce
