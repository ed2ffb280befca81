"""`confide verify`: judge evidence offline, or live at a URL. What its commands share stands here."""

import functools
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click
from confide_attestation.ear import export_ear
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.pem import pem_or_der
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.result import AttestationResult, Verdict
from confide_attestation.transcript_html import render_page
from confide_attestation.transcript_text import plain, render_transcript
from confide_protocol.errors import PolicyError
from confide_protocol.settings import MAX_SETTINGS_BYTES

MAX_FILE_BYTES = 1 << 20
EXIT_STATUS: Mapping[Verdict, int] = {
    Verdict.ACCEPTED: 0,
    Verdict.AUTHENTIC: 0,
    Verdict.REFUSED: 1,
    Verdict.UNREADABLE: 2,
}
# Kinds of evidence whose command is loaded only when it is asked for.
KINDS = {
    "air": "confide.cli.verify_air:air",
    "azure": "confide.cli.verify_azure:azure",
    "eventlog": "confide.cli.verify_eventlog:eventlog",
    "nras": "confide.cli.verify_nvidia:nras",
    "nvidia": "confide.cli.verify_nvidia:nvidia",
    "report": "confide.cli.verify_report:report",
    "snp": "confide.cli.verify_snp:snp",
    "tdx": "confide.cli.verify_tdx:tdx",
}
# What stands in the place of a file when it is none.
_KINDS_OF_NODE = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class VerifyGroup(click.Group):
    """A group in which a URL stands for the command `url`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *KINDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in KINDS:
            module, _, name = KINDS[cmd_name].partition(":")
            command: click.Command = getattr(import_module(module), name)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0].startswith(("http://", "https://")):
            args = ["url", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=VerifyGroup, short_help="Judge evidence: files, or live at a URL.")
def verify() -> None:
    """Judge attestation evidence and print every check with its reason.

    \b
    confide verify snp report.bin --vek vcek.der        a file, offline
    confide verify https://gateway.example --policy P   live, with a fresh nonce

    Exit status: 0 accepted (or, without a policy, authentic), 1 refused, 2 an input is not what it should be.
    """


@dataclass(frozen=True)
class Run:
    """What the shared options say: as of when to judge, by what policy, and where the result goes."""

    now_unix_s: int
    as_json: bool
    html: Path | None
    ear: Path | None
    policy_file: Path | None = None
    allow_simulated: bool = False

    @property
    def policy(self) -> AppraisalPolicy | None:
        """Read the policy, if one was given; one line and exit 2 if that cannot be."""
        if self.policy_file is None:
            return None
        try:
            return load_policy(read_file(self.policy_file, MAX_SETTINGS_BYTES), str(self.policy_file))
        except PolicyError as fault:
            stop(str(fault))


# Whether it is a file is said by `read_file`, in one line.
FILE = click.Path(path_type=Path)
at_option = click.option(
    "--at", type=click.IntRange(0, 253_402_300_799), metavar="UNIX", help="Judge as of this time.  [default: now]"
)
_POLICY = (
    click.option(
        "--policy",
        "policy_file",
        type=FILE,
        help="Appraisal policy (TOML), yours.  [default: authenticity alone is judged]",
    ),
    click.option(
        "--allow-simulated", is_flag=True, help="Let a policy of kind `simulated` accept simulated hardware."
    ),
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of the transcript."
)
_OUTPUT = (
    click.option("--html", type=FILE, help="Write the result as one HTML page that needs nothing else."),
    click.option("--ear", type=FILE, help="Write the result as EAR (JSON)."),
    json_option,
)
Command = Callable[..., None]


def run_options(*, at: bool = True, policy: bool = False) -> Callable[[Command], Command]:
    """Give a command the shared options; it gets them as `run`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(
            *args: object,
            as_json: bool,
            html: Path | None,
            ear: Path | None,
            at: int | None = None,
            policy_file: Path | None = None,
            allow_simulated: bool = False,
            **options: object,
        ) -> None:
            now_unix_s = int(time.time()) if at is None else at
            run = Run(now_unix_s, as_json, html, ear, policy_file, allow_simulated)
            try:
                command(*args, run=run, **options)
            except PolicyError as fault:
                stop(str(fault))

        shared = (*((at_option,) if at else ()), *(_POLICY if policy else ()), *_OUTPUT)
        return functools.reduce(lambda each, option: option(each), reversed(shared), wrapped)

    return decorate


def finish(
    result: AttestationResult,
    run: Run,
    files: Mapping[str, Path | None],
    *,
    what: Path | str,
    notes: Sequence[str] = (),
    hint: str = "",
) -> NoReturn:
    """Write and print a result and end with its status.

    `files` names, by check, the input that could not be read; `what` was judged; `notes` are more that the
    result does not show, `hint` goes to stderr.
    """
    if run.html is not None:
        name = what.name if isinstance(what, Path) else what
        _write(run.html, render_page(result, title=name, notes=notes))
    if run.ear is not None:
        _write(run.ear, json.dumps(export_ear(result), indent=1) + "\n")
    if result.verdict is Verdict.UNREADABLE:
        named = [check for check in result.failed if check.id in files] or result.failed
        _complain(f"{files.get(named[0].id, what)}: {named[0].id}: {named[0].detail}")
    if run.as_json:
        click.echo(json.dumps(as_tree(result)))
    elif result.verdict is not Verdict.UNREADABLE:
        click.echo(render_transcript(result, notes))
    if hint:
        _complain(hint)
    sys.exit(EXIT_STATUS[result.verdict])


def as_tree(result: AttestationResult) -> dict[str, object]:
    """Return a result as `--json` prints it."""
    return {
        "verdict": result.verdict.value,
        "appraised": result.policy_id is not None and result.verdict is not Verdict.UNREADABLE,
        "simulated": result.simulated,
        "checks": [{"id": c.id, "outcome": c.outcome.value, "detail": c.detail} for c in result.checks],
        "claims": {group: dict(claims) for group, claims in result.claims.items()},
    }


def read_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a file of at most `max_bytes`; one line and exit 2 if that cannot be.

    Never waits: what is no regular file is refused, and the size is known before anything is read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                kind = _KINDS_OF_NODE.get(stat.S_IFMT(found.st_mode), "something else")
                stop(f"{path}: expected a file, found {kind}")
            size = found.st_size
            if size <= max_bytes:
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read(max_bytes + 1)
                if len(data) <= max_bytes:
                    return data
                size = len(data)
            stop(f"{path}: has {size} bytes, more than {max_bytes}; is it the right file?")
        finally:
            os.close(descriptor)
    except OSError as fault:
        stop(f"{path}: cannot be read: {fault.strerror}; check the path")


def stop(message: str) -> NoReturn:
    """End with one line and exit status 2."""
    _complain(message)
    sys.exit(2)


def read_der(path: Path, label: str) -> bytes:
    """Read a PEM or DER file as DER; one line and exit 2 if that cannot be."""
    try:
        return pem_or_der(read_file(path), label)
    except EvidenceMalformed as fault:
        stop(f"{path}: {fault}")


def read_hex(option: str, text: str, *lengths: int) -> bytes:
    """Read an option in hexadecimal, of one of `lengths` bytes if any is given; one line and exit 2 otherwise."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if not value or (lengths and len(value) not in lengths):
        digits = " or ".join(str(2 * length) for length in lengths)
        stop(f"{option}: needs {f'{digits} ' if digits else ''}hex digits")
    return value


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as fault:
        stop(f"{path}: cannot be written: {fault.strerror}; choose another path")


def _complain(message: str) -> None:
    # A path, or a peer's bytes in a detail, may hold what a terminal would obey.
    click.echo(f"confide verify: {plain(' '.join(message.split()))}", err=True)
