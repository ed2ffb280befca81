"""`confide policy`: read a policy before it decides, in words and on evidence that was kept."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from confide_attestation.appraise import appraise
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import parse_bundle
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.policy_explain import explain_policy, refused_always
from confide_attestation.policy_types import Waived
from confide_attestation.result import AttestationResult, Verdict
from confide_protocol.errors import ProtocolError
from confide_protocol.keyset import parse_keyset
from confide_protocol.settings import MAX_SETTINGS_BYTES

from confide.audit import MAX_AUDIT_BYTES, parse_audit_file
from confide.cli.render import utc
from confide.cli.verify import FILE, read_file

MAX_ARCHIVE_FILES = 100_000
DAY_S = 86_400
# What a kept bundle cannot show is not held against it: nobody kept the nonce that it answers.
_KEPT = Waived(waived="a dry run: the nonce that kept evidence answers is not kept with it")
allow_simulated = click.option(
    "--allow-simulated", is_flag=True, help="Let a policy of kind `simulated` accept simulated hardware."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.group(short_help="Explain a policy, or try it on kept evidence.")
def policy() -> None:
    """Read an appraisal policy before it decides.

    \b
    confide policy explain policy.toml           every demand in words, and what is not checked
    confide policy try policy.toml evidence/     what it would have said to evidence that was kept
    """


@policy.command(short_help="Say in words what a policy demands.")
@click.argument("file", type=FILE)
@json_option
def explain(file: Path, as_json: bool) -> None:
    """Say what the policy FILE demands, what it does not check and why, and what every policy refuses."""
    demanded = _load(file)
    demands, always = explain_policy(demanded), refused_always(demanded)
    if as_json:
        tree = {
            "id": demanded.id,
            "serial": demanded.serial,
            "kind": demanded.kind,
            "not_after": demanded.not_after_unix_s,
            "digest": demanded.digest.hex(),
            "demands": {each.place: each.words for each in demands if not each.waived},
            "waived": {each.place: each.words for each in demands if each.waived},
            "refused_always": list(always),
        }
        click.echo(json.dumps(tree))
        return
    days = (demanded.not_after_unix_s - int(time.time())) // DAY_S
    left = f"{days} days more" if days >= 0 else "EXPIRED: it refuses everything"
    click.echo(f"{demanded.id}, serial {demanded.serial}, SHA-256 {demanded.digest.hex()[:16]}…")
    click.echo(f"good until {utc(demanded.not_after_unix_s)} ({left})")
    if demanded.kind == "simulated":
        click.echo("*** of kind simulated: it accepts SIMULATED HARDWARE, where the caller allows that too ***")
    for title, lines in (
        ("demands", [f"{each.words}  [{each.place}]" for each in demands if not each.waived]),
        ("does NOT check", [f"{each.place}, because: {each.words}" for each in demands if each.waived]),
        ("refuses always", list(always)),
    ):
        click.echo(f"\n{title}")
        for line in lines or ["nothing"]:
            click.echo(f"  {line}")


@dataclass(frozen=True)
class _Tried:
    """One file of an archive; `fault` if it holds no evidence."""

    file: Path
    judged_at_unix_s: int = 0
    result: AttestationResult | None = None
    fault: str = ""


@policy.command("try", short_help="Judge kept evidence by a policy.")
@click.argument("file", type=FILE)
@click.argument("archive", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--at",
    type=click.IntRange(0, 253_402_300_799),
    metavar="UNIX",
    help="Judge all as of this time.  [default: the time that an audit file states, or the begin of the keyset]",
)
@allow_simulated
@json_option
def try_(file: Path, archive: tuple[Path, ...], at: int | None, allow_simulated: bool, as_json: bool) -> None:
    """Judge each file of ARCHIVE (files or folders) by the policy FILE: a dry run before it is put to use.

    An archive holds evidence as `confide verify URL --save` keeps it, and audit files. The freshness of evidence
    without its nonce is not judged.

    Exit status: 0 all would be accepted, 1 some would not, 2 a file is no evidence.
    """
    demanded = _load(file)
    tried = [_try(each, demanded, at, allow_simulated) for each in _files(archive)]
    if as_json:
        click.echo(json.dumps([_tree(each) for each in tried]))
    else:
        _print(tried)
    if any(each.result is None for each in tried):
        sys.exit(2)
    sys.exit(0 if all(each.result and each.result.verdict is Verdict.ACCEPTED for each in tried) else 1)


def _load(file: Path) -> AppraisalPolicy:
    return load_policy(read_file(file, MAX_SETTINGS_BYTES), str(file))


def _files(archive: tuple[Path, ...]) -> Iterator[Path]:
    count = 0
    for place in archive:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if not file.is_dir():
                count += 1
                if count > MAX_ARCHIVE_FILES:
                    raise click.UsageError(f"more than {MAX_ARCHIVE_FILES} files; try a part of the archive")
                yield file


def _try(file: Path, demanded: AppraisalPolicy, at: int | None, allow_simulated: bool) -> _Tried:
    data = read_file(file, MAX_AUDIT_BYTES)
    nonce, kept_at = None, None
    try:
        audit = parse_audit_file(data)
        data, nonce, kept_at = audit.evidence, audit.nonce, audit.stated_unix_s
    except ProtocolError:
        demanded = demanded.model_copy(update={"freshness": _KEPT})
    try:
        evidence, endorsements = parse_bundle(data)
        if kept_at is None:
            kept_at = parse_keyset(evidence.keyset).not_before_unix_s
    except (EvidenceMalformed, ProtocolError) as fault:
        return _Tried(file, fault=str(fault))
    judged_at = kept_at if at is None else at
    result = appraise(
        evidence,
        endorsements,
        demanded,
        now_unix_s=judged_at,
        floor=demanded.serial,
        nonce=nonce,
        allow_simulated=allow_simulated,
    )
    return _Tried(file, judged_at, result)


def _print(tried: list[_Tried]) -> None:
    failed: Counter[str] = Counter()
    for each in tried:
        if each.result is None:
            click.echo(f"no evidence  {each.file}: {each.fault}")
            continue
        failed.update(check.id for check in each.result.failed)
        why = "".join(f"\n    {check.id}: {check.detail}" for check in each.result.failed)
        click.echo(f"{each.result.verdict:<12} {each.file}, as of {utc(each.judged_at_unix_s)}{why}")
    verdicts = Counter("no evidence" if each.result is None else each.result.verdict.value for each in tried)
    click.echo("\n" + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))
    for check_id, count in failed.most_common():
        click.echo(f"  {count} failed {check_id}")


def _tree(tried: _Tried) -> dict[str, object]:
    result = tried.result
    return {
        "file": str(tried.file),
        "judged_at": tried.judged_at_unix_s,
        "verdict": None if result is None else result.verdict.value,
        "fault": tried.fault or None,
        "failed": [] if result is None else [[check.id, check.detail] for check in result.failed],
    }
