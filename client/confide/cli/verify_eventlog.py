"""`confide verify eventlog`: judge a TD's event log by the registers in a TDX quote, offline."""

from pathlib import Path

import click
from confide_attestation.eventlog.ids import EventLogCheck
from confide_attestation.eventlog.judge import verify_event_log
from confide_attestation.result import Verdict
from confide_attestation.tdx.abi import MAX_PADDED_BYTES
from confide_attestation.tdx.collateral import MAX_COLLATERAL_BYTES
from confide_attestation.tdx.ids import TdxCheck

from confide.cli.verify import FILE, Run, finish, read_file, run_options
from confide.cli.verify_tdx import stop_without_collateral

UNJUDGED = (
    "whose quote it is: its signature was not judged, the log fits a quote that may be anybody's; give --collateral"
)


@click.command(short_help="Judge an event log by a TDX quote.")
@click.argument("log", type=FILE)
@click.option("--quote", required=True, type=FILE, help="The TDX quote whose RTMRs the log has to make.")
@click.option(
    "--collateral",
    type=FILE,
    help="Intel's documents, dcap-qvl's QuoteCollateralV3 as JSON.  [default: the quote's signature is not judged]",
)
@run_options(policy=True)
def eventlog(log: Path, quote: Path, collateral: Path | None, run: Run) -> None:
    """Replay LOG (CCEL, an event list as JSON, or dstack's GetQuote answer) into the RTMRs of a TDX quote.

    Only events that were recomputed from their digests are shown (--json). For dstack the compose hash has to be
    there once, before the application could write events of its own.
    """
    policy, data = run.policy, read_file(quote, MAX_PADDED_BYTES)
    result = verify_event_log(
        read_file(log),
        data,
        now_unix_s=run.now_unix_s,
        collateral_json=None if collateral is None else read_file(collateral, MAX_COLLATERAL_BYTES),
        policy=policy,
        allow_simulated=run.allow_simulated,
    )
    if policy is not None and collateral is None:
        stop_without_collateral(quote, data)
    files = {
        EventLogCheck.LOG_FORMAT: log,
        EventLogCheck.LOG_QUOTE_FORMAT: quote,
        TdxCheck.COLLATERAL_FORMAT: collateral,
    }
    unjudged = collateral is None and result.verdict is Verdict.AUTHENTIC
    named = {str(check_id): path for check_id, path in files.items()}
    finish(result, run, named, what=log, notes=(UNJUDGED,) if unjudged else ())
