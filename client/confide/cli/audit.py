"""`confide audit`: judge a kept exchange offline."""

import json
import sys
from functools import partial
from pathlib import Path

import click
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.transcript_text import render_transcript
from confide_protocol.errors import ConfigError, LocalStateError, Malformed
from confide_protocol.transcript import PartKind

from confide import audit as auditing
from confide.cli import options
from confide.cli.render import render_receipt, utc
from confide.cli.verify import as_tree
from confide.relay import read_policy
from confide.replay import check_rerun, find_replayer


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--at",
    type=click.IntRange(0, 253_402_300_799),
    metavar="UNIX",
    help="Judge as of then.  [default: the time that the file states]",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Judge the evidence by your own policy.  [default: the one in the file]",
)
@options.allow_simulated
@click.option(
    "--disclose",
    metavar="KIND:N",
    help="Judge nothing; write a file that shows this one part of the answer (message:0, chunk:3, …) to --to.",
)
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="Where --disclose writes.")
@click.option("--rerun", is_flag=True, help="Run the request again and compare the answer; takes --weights.")
@click.option("--weights", type=click.Path(path_type=Path), help="The model: a GGUF file or a converted package.")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="For --rerun; any number gives the same.")
@click.option("--words", is_flag=True, help="Print the disclosed request and answer too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the transcript.")
def audit(
    file: Path,
    at: int | None,
    policy_file: Path | None,
    allow_simulated: bool,
    disclose: str | None,
    to: Path | None,
    rerun: bool,
    weights: Path | None,
    threads: int,
    words: bool,
    as_json: bool,
) -> None:
    """Judge the audit FILE that `confide chat --save` wrote: evidence, receipt, and the words if it has them.

    \b
    confide audit kept.confide --policy policy.toml              all of it
    confide audit kept.confide --disclose message:0 --to one     a file with one message and no other word
    confide audit kept.confide --rerun --weights model.gguf      does the same answer come out, bit for bit?

    --rerun takes what runs a model (pip install 'confide[enclave]') and an answer of exact mode. A GGUF file is
    converted once, beside itself where that can be written.

    Needs no network. Exit status: 0 all holds, 1 something does not, 2 FILE is not an audit file.
    """
    try:
        with file.open("rb") as handle:
            kept = auditing.parse_audit_file(handle.read(auditing.MAX_AUDIT_BYTES + 1))
        if disclose is not None:
            _disclose(kept, disclose, to)
            return
        result = auditing.audit(
            kept,
            at_unix_s=at,
            policy=None if policy_file is None else read_policy(policy_file),
            allow_simulated=allow_simulated,
            rerun=_rerunner(weights, threads, wanted=rerun),
        )
    except OSError as fault:
        raise ConfigError(str(file), "file", f"cannot be read ({fault.strerror}); check the path") from None
    except (Malformed, EvidenceMalformed) as fault:
        raise ConfigError(str(file), "file", f"{fault}; give a file that `confide chat --save` wrote") from None
    if as_json:
        click.echo(json.dumps(_tree(kept, result)))
    else:
        _print(kept, result, own_policy=policy_file is not None, words=words)
    sys.exit(0 if result.holds else 1)


def _rerunner(weights: Path | None, threads: int, *, wanted: bool) -> auditing.Rerunner | None:
    if wanted and weights is None:
        raise ConfigError("--weights", "is missing", "name the model's file; the manifest has its digest")
    if weights is None:
        return None
    if not wanted:
        raise ConfigError("--weights", str(weights), "is for --rerun; give both, or neither")
    return partial(check_rerun, find_replayer(), weights=weights, threads=threads)


def _print(kept: auditing.AuditFile, result: auditing.AuditResult, *, own_policy: bool, words: bool) -> None:
    click.echo(f"states: {utc(kept.stated_unix_s)}; judged offline")
    click.echo(render_transcript(result.attestation))
    if not own_policy:
        click.echo("note: judged by the policy in the file; give --policy to judge by one that you trust")
    click.echo()
    for check in result.checks:
        click.echo(f"{check.outcome} {check.id} — {check.detail}")
    if result.claims is not None:
        shown = kept.exchange is not None and result.holds
        click.echo("\n" + render_receipt(result.claims, recomputed=shown))
    if words and kept.exchange is not None:
        for name, data in (("asked", kept.exchange.request_body), ("answered", b"".join(kept.exchange.response))):
            click.echo(f"\n{name}:\n{data.decode(errors='replace')}")
    for part in kept.parts if words else ():
        click.echo(f"\n{part.kind} {part.index}:\n{part.content.decode(errors='replace')}")
    click.echo("\n" + ("all holds" if result.holds else "REFUSED"))


def _disclose(kept: auditing.AuditFile, wanted: str, to: Path | None) -> None:
    name, _, index = wanted.partition(":")
    kinds: dict[str, PartKind] = {"message": "message", "chunk": "chunk"}
    kind = kinds.get(name)
    if kind is None or not index.isascii() or not index.isdigit() or len(index) > 9:
        raise ConfigError("--disclose", wanted, "needs message:N or chunk:N, counted from 0")
    if to is None:
        raise ConfigError("--to", "is missing", "name the file to write")
    try:
        shown = auditing.disclose(kept, kind, int(index))
    except LocalStateError as fault:
        raise ConfigError("--disclose", wanted, str(fault)) from None
    options.write_file(to, shown.encoded, "--to")
    click.echo(f"wrote {to}: {kind} {index}, its salt and its place in the signed transcript; no other word")


def _tree(kept: auditing.AuditFile, result: auditing.AuditResult) -> dict[str, object]:
    return {
        "holds": result.holds,
        "stated_at": kept.stated_unix_s,
        "disclosed": kept.exchange is not None,
        "attestation": as_tree(result.attestation),
        "checks": [{"id": c.id, "outcome": c.outcome.value, "detail": c.detail} for c in result.checks],
    }
