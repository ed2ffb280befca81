"""`confide verify tdx`: judge one TDX quote by Intel's collateral for its platform, offline."""

import time
from pathlib import Path

import click
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.tdx.abi import MAX_PADDED_BYTES, parse_quote
from confide_attestation.tdx.collateral import MAX_COLLATERAL_BYTES
from confide_attestation.tdx.ids import TDX_FILES, TdxCheck
from confide_attestation.tdx.library import collateral_urls
from confide_attestation.tdx.judge import verify_tdx

from confide.cli.verify import FILE, at_option, finish, json_option, read_file, stop


@click.command(short_help="Judge one Intel TDX quote.")
@click.argument("quote", type=FILE)
@click.option(
    "--collateral", type=FILE, help="Intel's documents for the platform: dcap-qvl's QuoteCollateralV3 as JSON."
)
@at_option
@json_option
def tdx(quote: Path, collateral: Path | None, at: int | None, as_json: bool) -> None:
    """Judge the TDX QUOTE, of version 4 or 5, with or without zero bytes after it.

    Only authenticity is judged: form, signatures, chains, revocation, TCB, debugging, migration, service TDs. A TCB
    status other than UpToDate is refused. The verdict is then "authentic, NOT appraised".
    """
    data = read_file(quote, MAX_PADDED_BYTES)
    if collateral is None:
        _stop_without_collateral(quote, data)
        return
    result = verify_tdx(
        data, read_file(collateral, MAX_COLLATERAL_BYTES), now_unix_s=int(time.time()) if at is None else at
    )
    files = {str(check): collateral if check is TdxCheck.COLLATERAL_FORMAT else quote for check in TDX_FILES}
    finish(result, files, as_json)


def _stop_without_collateral(quote: Path, data: bytes) -> None:
    try:
        urls = collateral_urls(parse_quote(data).data)
    except EvidenceMalformed as fault:
        stop(f"{quote}: {fault.check}: {fault}")
    stop(
        f"--collateral is missing; Intel has what it holds at {', '.join(urls)}: put them in one JSON file in the "
        "form of dcap-qvl's QuoteCollateralV3 (its `get_collateral` does), and give it with --collateral"
    )
