"""Ask another verifier: write a mutation's files, run its command, judge by its exit status."""

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from string import Formatter

from tests.conformance import Case, Files, Judge, Judged

TIMEOUT_S = 60
MAX_OUTPUT_BYTES = 4 << 20
_GROUP = re.compile(r"\[([^\[\]]*)\]")
HELP = r"""
every mutation is judged by one run of --command; --every N and --case keep that short

placeholders of --command (paths of files, but for the first four):
  {kind} {name} {now} {nonce}            snp, tdx, nvidia, azure, eventlog or nras; the case; Unix seconds; hex
  {report} {vek} {ask} {ark} {crl}       snp: raw report, DER
  {quote} {collateral}                   tdx: raw quote, dcap-qvl's QuoteCollateralV3 as JSON
  {report0} {chain0} {rim0} {rim1} {ocsp}  nvidia: raw SPDM report, PEM, XML; a folder of DER answers
  {hcl} {tpm_quote} {tpm_signature} {pcrs} {td_quote} {collateral} {vek} {ask} {ark}   azure
  {log} {quote} {collateral}             eventlog: CCEL or JSON
  {tokens} {jwks}                        nras
  {root} {rim_root}                      the vendor's root: only for verifiers that can be told whom to trust
[...] is left out when a file in it is absent; a file that is absent elsewhere is there, but empty. Without {root}
only evidence of real machines is used. Exit status 0 means accepted, anything else refused. With --json the checks
that fail are read from standard output: {"checks": [{"id": ..., "outcome": "FAIL"}, ...]}.

example:
  --kind snp --json --command \
  'confide verify snp {report} --vek {vek} [--ask {ask}] [--ark {ark}] [--crl {crl}] --at {now} --json'
"""


def fits(template: str, case: Case) -> bool:
    """Say whether a command can be asked about a case: it knows the case's files, and whom to trust."""
    names = {name for _, name, _, _ in Formatter().parse(template) if name}
    wanted = {role.rstrip("0123456789") for role in case.files} - {"crl", "rim", "ask", "ark"}
    known = {name.rstrip("0123456789") for name in names}
    return wanted <= known | {"ocsp"} and (case.real or "root" in names)


def by_command(template: str, case: Case, folder: Path, *, reads_json: bool) -> Judge:
    """Return a judge that writes files into `folder` and runs `template` on them."""

    def judge(files: Files, now: int, nonce: bytes) -> Judged:
        words = {"kind": case.kind, "name": case.name, "now": str(now), "nonce": nonce.hex()}
        argv = arguments(template, words, _written(folder, {**files, **case.roots}))
        try:
            done = subprocess.run(argv, capture_output=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return Judged(True)
        refused = done.returncode != 0
        return Judged(refused, _failed(done.stdout) if reads_json else None)

    return judge


def arguments(template: str, words: Mapping[str, str], paths: Mapping[str, str]) -> list[str]:
    """Fill a template in; a file that is absent but not in brackets becomes an empty one."""
    known = {**words, **paths}

    def keep(group: re.Match[str]) -> str:
        names = [name for _, name, _, _ in Formatter().parse(group[1]) if name]
        return group[1] if all(name in known for name in names) else ""

    empty = str(Path(paths["empty"]))
    filled = []
    for word in shlex.split(_GROUP.sub(keep, template)):
        filled.append(re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], empty), word))
    return filled


def _written(folder: Path, files: Files) -> dict[str, str]:
    for old in folder.iterdir():
        if old.is_file():
            old.unlink()
    answers = folder / "ocsp"
    answers.mkdir(exist_ok=True)
    for old in answers.iterdir():
        old.unlink()
    paths = {"empty": str(folder / "empty")}
    Path(paths["empty"]).touch()
    for role, data in files.items():
        place = answers / role if role.startswith("ocsp") else folder / role
        place.write_bytes(data)
        paths["ocsp" if role.startswith("ocsp") else role] = str(answers if role.startswith("ocsp") else place)
    return paths


def _failed(output: bytes) -> frozenset[str] | None:
    """Read which checks fail, or nothing if the output is of another form."""
    try:
        tree = json.loads(output[:MAX_OUTPUT_BYTES])
        return frozenset(str(check["id"]) for check in tree["checks"] if check["outcome"] == "FAIL")
    except (ValueError, TypeError, KeyError):
        return None
