"""`confide verify tdx`: judge one TDX quote by Intel's collateral for its platform, offline."""

from pathlib import Path
from typing import NoReturn

import click
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.tdx.abi import MAX_PADDED_BYTES, parse_quote
from confide_attestation.tdx.collateral import MAX_COLLATERAL_BYTES
from confide_attestation.tdx.ids import TDX_FILES, TdxCheck
from confide_attestation.tdx.judge import verify_tdx
from confide_attestation.tdx.library import collateral_urls

from confide.cli.verify import FILE, Run, finish, read_file, run_options, stop


@click.command(short_help="Judge one Intel TDX quote.")
@click.argument("quote", type=FILE)
@click.option(
    "--collateral", type=FILE, help="Intel's documents for the platform: dcap-qvl's QuoteCollateralV3 as JSON."
)
@run_options(policy=True)
def tdx(quote: Path, collateral: Path | None, run: Run) -> None:
    """Judge the TDX QUOTE, of version 4 or 5, with or without zero bytes after it.

    Without --policy only authenticity is judged: form, signatures, chains, revocation, TCB, debugging, migration,
    service TDs; a TCB status other than UpToDate is refused. The verdict is then "authentic, NOT appraised".
    """
    policy, data = run.policy, read_file(quote, MAX_PADDED_BYTES)
    if collateral is None:
        stop_without_collateral(quote, data)
    result = verify_tdx(
        data,
        read_file(collateral, MAX_COLLATERAL_BYTES),
        now_unix_s=run.now_unix_s,
        policy=policy,
        allow_simulated=run.allow_simulated,
    )
    files = {str(check): collateral if check is TdxCheck.COLLATERAL_FORMAT else quote for check in TDX_FILES}
    finish(result, run, files, what=quote)


def stop_without_collateral(path: Path, quote: bytes) -> NoReturn:
    """Say where the documents that are missing lie; one line and exit 2."""
    try:
        urls = collateral_urls(parse_quote(quote).data)
    except EvidenceMalformed as fault:
        stop(f"{path}: {fault.check}: {fault}")
    stop(
        f"--collateral is missing; Intel has what it holds at {', '.join(urls)}: `confide endorsements fetch` "
        "brings it, on another machine too (`confide endorsements import` brings it here), as does dcap-qvl's "
        "`get_collateral`; give the one JSON file with --collateral"
    )
