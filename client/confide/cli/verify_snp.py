"""`confide verify snp`: judge one AMD SEV-SNP report, offline."""

from pathlib import Path
from typing import NoReturn

import click
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.pem import pem_blocks
from confide_attestation.snp.abi import parse_report
from confide_attestation.snp.ids import SNP_FILES
from confide_attestation.snp.judge import verify_snp
from confide_attestation.snp.kds import vek_urls

from confide.cli.verify import FILE, Run, finish, read_der, read_file, run_options, stop


@click.command(short_help="Judge one AMD SEV-SNP report.")
@click.argument("report", type=FILE)
@click.option("--vek", type=FILE, help="VCEK or VLEK certificate, PEM or DER.")
@click.option(
    "--ask",
    type=FILE,
    help="ASK or ASVK certificate, PEM or DER, or AMD's cert_chain (it and the ARK, PEM).  [default: packaged]",
)
@click.option("--ark", type=FILE, help="ARK certificate, PEM or DER; must be a pinned one.  [default: packaged]")
@click.option("--crl", type=FILE, help="AMD's revocation list, PEM or DER.  [default: revocation is not judged]")
@run_options(policy=True)
def snp(report: Path, vek: Path | None, ask: Path | None, ark: Path | None, crl: Path | None, run: Run) -> None:
    """Judge the SEV-SNP attestation REPORT (1,184 bytes) of versions 2 to 5.

    Without --policy only authenticity is judged: signatures, chain, validity, TCB, debug and migration bits,
    revocation where --crl is given. The verdict is then "authentic, NOT appraised".
    """
    policy, data = run.policy, read_file(report)
    if vek is None:
        stop_without_vek(report, data)
    issuers = () if ask is None else _read_issuers(ask)
    result = verify_snp(
        data,
        SnpEndorsements(
            vek=read_der(vek, "CERTIFICATE"),
            ask=issuers[0] if issuers else None,
            ark=read_der(ark, "CERTIFICATE") if ark is not None else issuers[1] if len(issuers) == 2 else None,
            crl=None if crl is None else read_der(crl, "X509 CRL"),
        ),
        now_unix_s=run.now_unix_s,
        policy=policy,
        allow_simulated=run.allow_simulated,
    )
    files = dict(zip(SNP_FILES, (vek, ask, ark or ask, crl, report), strict=True))
    finish(result, run, {str(check_id): path for check_id, path in files.items()}, what=report)


def stop_without_vek(path: Path, report: bytes) -> NoReturn:
    """Say where the certificate that is missing lies; one line and exit 2."""
    try:
        urls = vek_urls(parse_report(report))
    except EvidenceMalformed as fault:
        stop(f"{path}: {fault.check}: {fault}; give the signer's certificate with --vek")
    stop(
        f"--vek is missing; AMD has it at {' or '.join(urls)}: `confide endorsements fetch` brings it, on another "
        "machine too (`confide endorsements import` brings it here); give it with --vek"
    )


def _read_issuers(path: Path) -> tuple[bytes, ...]:
    """Read an ASK, or AMD's cert_chain: the ASK and then the ARK."""
    data = read_file(path)
    if b"-----BEGIN" not in data:
        return (data,)
    try:
        return pem_blocks(data, "CERTIFICATE", (1, 2))
    except EvidenceMalformed as fault:
        stop(f"{path}: {fault}")
